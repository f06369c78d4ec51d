"""A context's tokens run through the model once: the prefix that its queries share."""

from dataclasses import dataclass

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.shared_prefix import Layers

_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values of a compiled context.

    Attributes:
        tokens: its ids.
        layers: per layer keys and values, each ``[1, kv heads, len(tokens), head size]``.
    """

    tokens: tuple[int, ...]
    layers: Layers

    @property
    def size_bytes(self) -> int:
        """Memory that the keys and values take."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer)

    def cache(self) -> DynamicCache:
        """A cache of one row that starts with this prefix; the prefix stays as it is."""
        cache = DynamicCache()
        for index, (keys, values) in enumerate(self.layers):
            cache.update(keys, values, index)
        return cache


EMPTY_PREFIX = Prefix((), ())


def compile_prefix(model: LanguageModel, tokens: tuple[int, ...], start: Prefix = EMPTY_PREFIX) -> Prefix:
    """Run ``tokens`` through the active adapter, in chunks.

    Args:
        start: a compiled prefix of ``tokens`` by the same adapter, to go on from.
    """
    assert tokens[: len(start.tokens)] == start.tokens
    if len(tokens) == len(start.tokens):
        return start
    cache = start.cache()
    for position in range(len(start.tokens), len(tokens), _CHUNK):
        chunk = torch.tensor([tokens[position : position + _CHUNK]], device=model.device)
        model.hidden_states(chunk, cache)
    return Prefix(tokens, tuple(_keys_and_values(layer) for layer in cache.layers))


def _keys_and_values(layer: object) -> tuple[torch.Tensor, torch.Tensor]:
    # Sliding windows and linear attention forget: such models' prefixes cannot be shared so.
    assert type(layer) is DynamicLayer, f"models with {type(layer).__name__} cannot be hosted"
    assert layer.keys is not None and layer.values is not None
    return layer.keys, layer.values
