"""LoRA adapters side by side over one frozen base: rows of different adapters share a forward pass.

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

_PREFIX = "base_model.model."


class UnsupportedAdapter(ValueError):
    """The adapter is of a kind that this installation neither makes nor serves."""


@dataclass(slots=True)
class _Use:
    """The columns of one forward pass, and for each token which of them count (None: all)."""

    columns: slice
    mask: torch.Tensor | None = None


class LoraLinear(nn.Module):
    """A frozen linear layer with the adapters of its bank."""

    def __init__(self, base: nn.Linear, bank: "LoraBank") -> None:
        super().__init__()
        self.base = base
        # A list: the bank is not a part of this layer.
        self._bank = [bank]
        self.down = base.weight.new_zeros(base.in_features, 0)
        self.up = base.weight.new_zeros(0, base.out_features)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """The layer's product of ``[…, in]``, with each token's adapter added."""
        output: torch.Tensor = self.base(states)
        use = self._bank[0].use
        if use is None or not self.down.shape[1]:
            return output
        narrow = states @ self.down[:, use.columns]
        if use.mask is not None:
            narrow *= use.mask
        return output + narrow @ self.up[use.columns]


class LoraBank:
    """The adapters over ``base``'s linear layers; ``use`` says which tokens of a pass get which."""

    def __init__(self, base: nn.Module) -> None:
        self._base = base
        self._layers: dict[str, LoraLinear] = {}
        self._columns: dict[str, slice] = {}
        self.use: _Use | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def add(self, name: str, folder: Path) -> None:
        """Load the PEFT adapter in ``folder``.

        Raises:
            UnsupportedAdapter: it holds more than plain low-rank matrices of linear layers.
        """
        assert name not in self
        matrices = _read(folder)
        rank = max(down.shape[0] for down, _ in matrices.values())
        width = max((columns.stop for columns in self._columns.values()), default=0)
        for module in matrices.keys() - self._layers.keys():
            self._wrap(module, width)
        for module, layer in self._layers.items():
            down, up = (
                layer.down.new_zeros(layer.base.in_features, rank),
                layer.up.new_zeros(rank, layer.base.out_features),
            )
            if module in matrices:
                narrow, wide = matrices[module]
                down[:, : narrow.shape[0]] = narrow.T
                up[: narrow.shape[0]] = wide.T
            layer.down = torch.cat([layer.down, down], dim=1)
            layer.up = torch.cat([layer.up, up])
        self._columns[name] = slice(width, width + rank)

    def remove(self, name: str) -> None:
        """Free an adapter's memory."""
        gone = self._columns.pop(name)
        for layer in self._layers.values():
            layer.down = torch.cat([layer.down[:, : gone.start], layer.down[:, gone.stop :]], dim=1)
            layer.up = torch.cat([layer.up[: gone.start], layer.up[gone.stop :]])
        rank = gone.stop - gone.start
        for other, columns in self._columns.items():
            if columns.start > gone.start:
                self._columns[other] = slice(columns.start - rank, columns.stop - rank)

    def select(self, names: Sequence[str | None], lengths: Sequence[int]) -> None:
        """Use adapter ``names[i]`` (None: the base alone) for the next ``lengths[i]`` tokens of the coming pass."""
        used = {name for name in names if name is not None}
        if not used:
            self.use = None
            return
        first = min(self._columns[name].start for name in used)
        last = max(self._columns[name].stop for name in used)
        self.use = _Use(slice(first, last))
        if len(set(names)) > 1:
            weight = next(iter(self._layers.values())).base.weight
            rows = torch.zeros(len(names), last - first)
            for row, name in enumerate(names):
                if name is not None:
                    columns = self._columns[name]
                    rows[row, columns.start - first : columns.stop - first] = 1
            mask = rows.repeat_interleave(torch.tensor(lengths), dim=0)
            self.use.mask = mask[None].to(weight.device, weight.dtype)

    def _wrap(self, module: str, width: int) -> None:
        """Put a layer of the bank into the model in place of a linear layer."""
        owner_name, _, attribute = module.rpartition(".")
        try:
            base = self._base.get_submodule(module)
        except AttributeError as error:
            raise UnsupportedAdapter(f"the base model has no layer {module}") from error
        if not isinstance(base, nn.Linear):
            raise UnsupportedAdapter(f"{module} is not a linear layer")
        layer = LoraLinear(base, self)
        layer.down = base.weight.new_zeros(base.in_features, width)
        layer.up = base.weight.new_zeros(width, base.out_features)
        setattr(self._base.get_submodule(owner_name), attribute, layer)
        self._layers[module] = layer


def _read(folder: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Per module its low-rank matrices ``[rank, in]`` and, with the scale in it, ``[out, rank]``, float32."""
    config = json.loads((folder / ADAPTER_CONFIG_FILE).read_text(encoding="utf-8"))
    plain = config.get("peft_type") == "LORA" and config.get("bias", "none") == "none"
    if not plain or config.get("use_dora") or config.get("rank_pattern") or config.get("alpha_pattern"):
        raise UnsupportedAdapter(f"{folder.name}: only plain LoRA adapters are served")
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    weights = load_file(folder / ADAPTER_FILE)
    matrices: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for key in [key for key in weights if key.endswith(".lora_A.weight")]:
        module = key.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        up = weights.pop(key.replace(".lora_A.", ".lora_B.")).float()
        matrices[module] = weights.pop(key).float(), up * scale
    if weights or not matrices:
        raise UnsupportedAdapter(f"{folder.name}: unknown weights {sorted(weights)[:3]}")
    return matrices
