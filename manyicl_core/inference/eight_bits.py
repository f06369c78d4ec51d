"""Keys and values in 8 bits: half of bfloat16's memory, made whole again layer by layer when they are read.

Keys have channels of very different sizes, values do not: keys share a scale a channel, values a
scale a token (Liu et al. 2024, *KIVI*, arXiv 2402.02750).
"""

from collections.abc import Iterator, Sequence

import torch

_GREATEST = 127

Packed = tuple[torch.Tensor, torch.Tensor]
"""int8 ``[1, kv heads, tokens, head size]``, and a scale that is broadcast over it."""


class EightBitLayers(Sequence[tuple[torch.Tensor, torch.Tensor]]):
    """Reads like the layers of a prefix; each is unpacked when it is asked for."""

    def __init__(self, packed: Sequence[tuple[Packed, Packed]]) -> None:
        self.packed = packed

    @classmethod
    def pack(cls, layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> "EightBitLayers":
        """Round keys and values, each ``[1, kv heads, tokens, head size]``, to 8 bits."""
        return cls([(_pack(keys, dim=2), _pack(values, dim=3)) for keys, values in layers])

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        keys, values = self.packed[layer]
        return _unpack(keys), _unpack(values)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return (self[layer] for layer in range(len(self)))

    def start(self, tokens: int) -> "EightBitLayers":
        """Of the first ``tokens`` alone, without a copy."""
        return EightBitLayers([(_start(keys, tokens), _start(values, tokens)) for keys, values in self.packed])

    def tensors(self) -> Iterator[torch.Tensor]:
        """All that is stored."""
        for keys, values in self.packed:
            yield from (*keys, *values)


def _pack(part: torch.Tensor, dim: int) -> Packed:
    """One scale for all along ``dim``, its own dtype."""
    scale = (part.abs().amax(dim=dim, keepdim=True).float() / _GREATEST).clamp_(min=torch.finfo(torch.float32).tiny)
    return (part.float() / scale).round_().clamp_(-_GREATEST, _GREATEST).to(torch.int8), scale.to(part.dtype)


def _unpack(packed: Packed) -> torch.Tensor:
    numbers, scale = packed
    return numbers.to(scale.dtype) * scale


def _start(packed: Packed, tokens: int) -> Packed:
    numbers, scale = packed
    return numbers[:, :, :tokens], scale[:, :, :tokens]  # a scale for all tokens stays one
