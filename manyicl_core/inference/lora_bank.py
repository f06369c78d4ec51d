"""LoRA adapters side by side over frozen linear layers: rows of different adapters share a forward pass.

The low-rank matrices of all resident adapters stand beside each other, so a layer adds two matrix
products for all rows together, however many adapters they use; a mask zeroes, for each token, the
columns of the adapters that are not its own. Adapters come and go without touching the base.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from manyicl_core.contract.weights import ADAPTER_CONFIG_FILE, ADAPTER_FILE
from manyicl_core.inference.frozen_linear import FrozenLinear

_PREFIX = "base_model.model."

Stacked = tuple[torch.Tensor, torch.Tensor]
"""Of one layer the matrices of all adapters side by side: ``[in, ranks]`` and ``[ranks, out]``."""

Matrices = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""Per module its low-rank matrices ``[rank, in]`` and, with the scale in it, ``[out, rank]``, float32."""


class UnsupportedAdapter(ValueError):
    """The adapter is of a kind that this installation neither makes nor serves."""


@dataclass(slots=True)
class _Use:
    """For the coming pass: ranks from ``first`` to ``last``.

    Attributes:
        masks: which of them count, ``[tokens, ranks * parts]`` by the number of a layer's parts; empty: all.
    """

    first: int
    last: int
    masks: dict[int, torch.Tensor]


class LoraLinear(nn.Module):
    """Frozen linear layers with the same input, as one product, and their adapters.

    Args:
        parts: what the adapters call each layer, with its number of outputs, in the order of ``weight``.
        weight: ``[out, in]`` of all parts together; ``bias`` is ``[out]``.
    """

    def __init__(self, parts: dict[str, int], weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        assert sum(parts.values()) == len(weight)
        self.parts = parts
        self.base = FrozenLinear(weight, bias)
        self.use: _Use | None = None
        # Side by side for each adapter: its matrices of every part.
        self._down = weight.new_zeros(weight.shape[1], 0)
        self._up = weight.new_zeros(0, weight.shape[0])

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """The product of ``[…, in]``, with each token's adapter added."""
        output = self.base(states)
        use = self.use
        if use is None:
            return output
        columns = slice(use.first * len(self.parts), use.last * len(self.parts))
        narrow = states @ self._down[:, columns]
        if use.masks:
            narrow *= use.masks[len(self.parts)]
        output.flatten(0, -2).addmm_(narrow.flatten(0, -2), self._up[columns])
        return output

    def with_more(self, matrices: Matrices, rank: int) -> Stacked:
        """All adapters' matrices and these behind them; parts that these do not have stay as they are."""
        down = self._down.new_zeros(self._down.shape[0], rank, len(self.parts))
        up = self._up.new_zeros(rank, len(self.parts), self._up.shape[1])
        begin = 0
        for number, (name, size) in enumerate(self.parts.items()):
            if name in matrices:
                narrow, wide = matrices[name]
                down[:, : len(narrow), number] = narrow.T
                up[: len(narrow), number, begin : begin + size] = wide.T
            begin += size
        return torch.cat([self._down, down.flatten(1)], dim=1), torch.cat([self._up, up.flatten(0, 1)])

    def without(self, first: int, last: int) -> Stacked:
        """All adapters' matrices but the ranks from ``first`` to ``last``."""
        first, last = first * len(self.parts), last * len(self.parts)
        return (
            torch.cat([self._down[:, :first], self._down[:, last:]], dim=1),
            torch.cat([self._up[:first], self._up[last:]]),
        )

    def replace(self, stacked: Stacked) -> None:
        """Use these matrices from now on."""
        self._down, self._up = stacked


class LoraBank:
    """The adapters over a model's layers; ``select`` says which tokens of the next pass get which."""

    def __init__(self, layers: Sequence[LoraLinear]) -> None:
        self._layers = layers
        self._ranks: dict[str, tuple[int, int]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._ranks

    def add(self, name: str, folder: Path) -> None:
        """Load the PEFT adapter in ``folder``.

        Raises:
            UnsupportedAdapter: it holds more than plain low-rank matrices of linear layers of this model.
        """
        assert name not in self
        matrices = _read(folder)
        sizes = {part: (layer.base.inputs, size) for layer in self._layers for part, size in layer.parts.items()}
        for module, (down, up) in matrices.items():
            if sizes.get(module) != (down.shape[1], up.shape[0]):
                raise UnsupportedAdapter(f"{folder.name}: the base model has no linear layer {module} of this size")
        rank = max(down.shape[0] for down, _ in matrices.values())
        first = max((last for _, last in self._ranks.values()), default=0)
        self._replace([layer.with_more(matrices, rank) for layer in self._layers])
        self._ranks[name] = first, first + rank

    def remove(self, name: str) -> None:
        """Free an adapter's memory."""
        first, last = self._ranks[name]
        self._replace([layer.without(first, last) for layer in self._layers])
        del self._ranks[name]
        for other, (begin, end) in self._ranks.items():
            if begin > first:
                self._ranks[other] = begin - (last - first), end - (last - first)

    def _replace(self, stacked: list[Stacked]) -> None:
        """All layers' matrices at once: where memory ends half-way, all are as they were."""
        for layer, matrices in zip(self._layers, stacked, strict=True):
            layer.replace(matrices)

    def select(self, names: Sequence[str | None], lengths: Sequence[int]) -> None:
        """Use adapter ``names[i]`` (None: the base alone) for the next ``lengths[i]`` tokens of the coming pass."""
        use = self._use(names, lengths)
        for layer in self._layers:
            layer.use = use

    def _use(self, names: Sequence[str | None], lengths: Sequence[int]) -> _Use | None:
        used = {name for name in names if name is not None}
        if not used:
            return None
        first = min(self._ranks[name][0] for name in used)
        last = max(self._ranks[name][1] for name in used)
        if len(set(names)) == 1:
            return _Use(first, last, {})
        rows = torch.zeros(len(names), last - first)
        for row, name in enumerate(names):
            if name is not None:
                begin, end = self._ranks[name]
                rows[row, begin - first : end - first] = 1
        base = self._layers[0].base
        mask = rows.to(base.device, base.dtype).repeat_interleave(torch.tensor(lengths, device=base.device), dim=0)
        parts = {len(layer.parts) for layer in self._layers}
        return _Use(first, last, {count: mask.repeat_interleave(count, dim=-1) for count in parts})


def _read(folder: Path) -> Matrices:
    config = json.loads((folder / ADAPTER_CONFIG_FILE).read_text(encoding="utf-8"))
    plain = config.get("peft_type") == "LORA" and config.get("bias", "none") == "none"
    if not plain or config.get("use_dora") or config.get("rank_pattern") or config.get("alpha_pattern"):
        raise UnsupportedAdapter(f"{folder.name}: only plain LoRA adapters are served")
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    weights = load_file(folder / ADAPTER_FILE)
    matrices: Matrices = {}
    for key in [key for key in weights if key.endswith(".lora_A.weight")]:
        module = key.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        other = key.replace(".lora_A.", ".lora_B.")
        if other in weights:
            matrices[module] = weights.pop(key).float(), weights.pop(other).float() * scale
    if not all(bool(part.isfinite().all()) for pair in matrices.values() for part in pair):
        raise UnsupportedAdapter(f"{folder.name}: it has weights that are not finite")
    if weights or not matrices:
        raise UnsupportedAdapter(f"{folder.name}: unknown weights {sorted(weights)[:3]}")
    return matrices
