"""Linear layers whose weights never change, laid out as they are multiplied fastest.

A product of few tokens is as fast as the weights are read. On a CPU oneDNN reads its own blocked
layout up to twice as fast as rows; ``torch.compile`` lays frozen weights out by the same two
operations. See docs/decisions/0020.
"""

from collections.abc import Callable

import torch
from torch import nn


class FrozenLinear:
    """``states @ weight.T + bias``.

    Args:
        weight: ``[out, in]``; the layer keeps no reference to it where it lays it out anew.
        bias: ``[out]``.

    Attributes:
        inputs: the size of what goes in; ``outputs`` is that of what comes out.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.outputs, self.inputs = weight.shape
        self.device, self.dtype = weight.device, weight.dtype
        self._bias = bias
        self._product = _product(weight)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """The product of ``[…, in]``, which is ``[…, out]``."""
        return self._product(states, self._bias)


def _product(weight: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]:
    if not _can_be_packed(weight):
        return lambda states, bias: nn.functional.linear(states, weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda states, bias: multiply(states, packed, bias, "none", [], "")


def _can_be_packed(weight: torch.Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype is torch.float32
