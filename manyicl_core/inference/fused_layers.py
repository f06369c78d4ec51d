"""A model's layers with fewer, larger operations: what a decoding step costs is mostly their number.

Query, key and value are one product, so are gate and up; rotation is a few operations instead of
a dozen. The numbers stay those of transformers' own layers. Where a model's layers are of another
kind they are left as they are, and only their linear layers are replaced.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP
from transformers.models.mistral.modeling_mistral import MistralAttention, MistralMLP
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2MLP

from manyicl_core.inference.lora_bank import LoraLinear
from manyicl_core.inference.row_attention import row_attention

_ATTENTION = (LlamaAttention, MistralAttention, Qwen2Attention)
_MLP = (LlamaMLP, MistralMLP, Qwen2MLP)


class FusedAttention(nn.Module):
    """Attention with rotary positions (Su et al. 2021) and grouped heads."""

    def __init__(self, path: str, original: Any) -> None:
        super().__init__()
        self.layer_idx = original.layer_idx
        self._scaling = original.scaling
        self._size = original.head_dim
        self._query_heads = original.q_proj.out_features // self._size
        self._kv_heads = original.k_proj.out_features // self._size
        self.qkv = _joined(path, original, ["q_proj", "k_proj", "v_proj"])
        self.out = _joined(path, original, ["o_proj"])

    def forward(
        self, hidden_states: torch.Tensor, position_embeddings: tuple[torch.Tensor, torch.Tensor], **options: Any
    ) -> tuple[torch.Tensor, None]:
        """As transformers calls a layer's attention, with what ``SignedRotary`` gives."""
        tokens = hidden_states.shape[1]
        cos, sin = position_embeddings
        heads = self.qkv(hidden_states).view(1, tokens, -1, self._size)
        turned, values = heads.split([self._query_heads + self._kv_heads, self._kv_heads], dim=2)
        turned = torch.addcmul(turned * cos, turned.roll(self._size // 2, dims=-1), sin)
        query, keys = turned.transpose(1, 2).split([self._query_heads, self._kv_heads], dim=1)
        attended, _ = row_attention(
            self, query, keys, values.transpose(1, 2), None, scaling=self._scaling, rows=options.get("rows")
        )
        return self.out(attended.reshape(1, tokens, -1)), None


class SignedRotary(nn.Module):
    """A model's cosines and sines, made ready for all layers: they come once a pass.

    ``rotate_half(x) * sin`` is x turned round by half, times sin with its first half negated.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self._original = original

    def forward(self, states: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As transformers calls it; ``[1, tokens, 1, head size]`` each."""
        cos, sin = self._original(states, position_ids)
        first, second = sin.chunk(2, dim=-1)
        return cos[:, :, None], torch.cat([-first, second], dim=-1)[:, :, None]


class FusedMLP(nn.Module):
    """The gated layer of Llama (Shazeer 2020, SwiGLU)."""

    def __init__(self, path: str, original: Any) -> None:
        super().__init__()
        self._activation = original.act_fn
        self.gate_up = _joined(path, original, ["gate_proj", "up_proj"])
        self.down = _joined(path, original, ["down_proj"])

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """As transformers calls it."""
        gate, up = self.gate_up(states).chunk(2, dim=-1)
        output: torch.Tensor = self.down(self._activation(gate) * up)
        return output


def fuse_layers(model: PreTrainedModel) -> list[LoraLinear]:
    """Replace the parts of ``model``'s layers in place; gives all its linear layers but the head."""
    if any(isinstance(module, _ATTENTION) for module in model.modules()):
        decoder = model.base_model
        decoder.rotary_emb = SignedRotary(decoder.get_submodule("rotary_emb"))
    # By path: a module that a list still holds would keep its weights.
    for path in _paths(model, (*_ATTENTION, *_MLP)):
        module = model.get_submodule(path)
        fused = FusedAttention(path, module) if isinstance(module, _ATTENTION) else FusedMLP(path, module)
        _replace(model, path, fused)
    head = model.get_output_embeddings()
    for path in _paths(model, (nn.Linear,)):
        module = model.get_submodule(path)
        assert isinstance(module, nn.Linear)
        if module is not head:
            bias = None if module.bias is None else module.bias.data
            _replace(model, path, LoraLinear({path: module.out_features}, module.weight.data, bias))
    return [module for module in model.modules() if isinstance(module, LoraLinear)]


def _paths(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> list[str]:
    return [path for path, module in model.named_modules() if isinstance(module, kinds)]


def _joined(path: str, owner: nn.Module, names: Sequence[str]) -> LoraLinear:
    """Linear layers with the same input as one; those they are made of let go of their memory."""
    parts, weights, biases = {}, [], []
    for name in names:
        layer = owner.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        parts[f"{path}.{name}"] = layer.out_features
        weights.append(layer.weight.data)
        if layer.bias is not None:
            biases.append(layer.bias.data)
        layer.weight = nn.Parameter(layer.weight.new_empty(0, layer.in_features), requires_grad=False)
    assert len(biases) in (0, len(weights))
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    return LoraLinear(parts, weight, torch.cat(biases) if biases else None)


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    owner, _, name = path.rpartition(".")
    setattr(model.get_submodule(owner), name, module)
