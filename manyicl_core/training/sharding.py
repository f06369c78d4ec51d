"""From sharded tensors to whole ones and back. A tensor that is not sharded stays as it is."""

from collections.abc import Iterable

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A sharded tensor's whole; all processes take part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Iterable[tuple[str, torch.Tensor]], keep: bool) -> dict[str, torch.Tensor]:
    """The whole tensors by name, one gathered at a time; empty unless ``keep``. All processes take part."""
    kept: dict[str, torch.Tensor] = {}
    for name, tensor in tensors:
        complete = whole(tensor.detach())
        if keep:
            # A device that a part of the model fills has no room for the whole.
            kept[name] = complete.cpu() if isinstance(tensor, DTensor) else complete.contiguous()
    return kept


def like(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A whole ``tensor`` placed and sharded as ``parameter`` is; every process has the whole."""
    tensor = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
