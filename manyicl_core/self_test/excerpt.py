"""The part of a base model that is compared, in float32: all of it, or its first layers."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from manyicl_core.base_models.tensor_files import tensors_of

_LAYER = re.compile(r"\.(\d+)\.")
_WHOLE_NUMBERS = 500_000_000
"""A model of so many numbers is compared as a whole: 2 GB, and seconds."""


def excerpt_config(folder: Path) -> PreTrainedConfig:
    """The configuration of what is compared.

    Of a large model these are its first layers, so many that every kind of layer is among them:
    kinds differ in their tensors or in what the configuration lists layer by layer.
    """
    config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if sum(tensor.numbers for tensor in tensors_of(folder).values()) <= _WHOLE_NUMBERS:
        return config
    text = config.get_text_config()
    layers = text.num_hidden_layers
    listed = {name: value for name, value in text.to_dict().items() if _is_listed(value, layers)}
    tensors = _tensors_by_layer(folder)
    kinds = [(tensors[layer], tuple(str(value[layer]) for value in listed.values())) for layer in range(layers)]
    count = next(count for count in range(1, layers + 1) if set(kinds[:count]) == set(kinds))
    count = min(layers, max(2, count))
    for name, value in listed.items():
        setattr(text, name, value[:count])
    text.num_hidden_layers = count
    return config


def _is_listed(value: Any, layers: int) -> bool:
    return isinstance(value, list) and len(value) == layers


def _tensors_by_layer(folder: Path) -> dict[int, frozenset[tuple[str, tuple[int, ...]]]]:
    """Names, with the layer's number left out, and shapes."""
    found: defaultdict[int, set[tuple[str, tuple[int, ...]]]] = defaultdict(set)
    for name, tensor in tensors_of(folder).items():
        if match := _LAYER.search(name):
            found[int(match[1])].add((name[match.end() :], tensor.shape))
    return defaultdict(frozenset, {layer: frozenset(tensors) for layer, tensors in found.items()})
