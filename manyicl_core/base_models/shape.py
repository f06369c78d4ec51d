"""A base model's sizes, read from its ``config.json`` and the headers of its weights. No torch."""

import json
from pathlib import Path
from typing import Any

from manyicl_core.base_models.tensor_files import tensors_of
from manyicl_core.errors import UserError


class UnsupportedBaseModel(UserError):
    """A base model that cannot be used; whoever runs the service chooses another one."""


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json``; of a model that reads more than text, the part that is its language model."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text: dict[str, Any] = config.get("text_config") or {}
    return config | text


def longest_sequence(config: dict[str, Any]) -> int:
    """The most tokens that a model of this configuration reads.

    Where longer sequences turn *all* positions otherwise (LongRoPE, Ding et al. 2024), it is the
    length up to which they do not: prefixes and rows of several lengths share their keys.

    Raises:
        UnsupportedBaseModel: the configuration does not say it.
    """
    longest = _number(config, "max_position_embeddings")
    rotary = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if "longrope" in (rotary.get("rope_type"), rotary.get("type")):
        original = rotary.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
        return min(longest, int(original or longest))
    return longest


def prefix_bytes(config: dict[str, Any]) -> int:
    """What a token's keys and values take, of every layer and key-value head, in the dtype of the model's files.

    Raises:
        UnsupportedBaseModel: the configuration does not say it.
    """
    heads = _number(config, "num_attention_heads")
    head_size = config.get("head_dim") or _number(config, "hidden_size") // heads
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    values = 2 * _number(config, "num_hidden_layers") * config.get("num_key_value_heads", heads) * head_size
    return int(values * (4 if dtype == "float32" else 2))


def linear_layers(folder: Path) -> set[str]:
    """Names of the linear layers that LoRA can adapt, such as ``q_proj``."""
    return {
        name.removesuffix(".weight").rsplit(".", 1)[-1]
        for name, tensor in tensors_of(folder).items()
        if ".layers." in name and len(tensor.shape) == 2
    }


def _number(config: dict[str, Any], name: str) -> int:
    if not isinstance(number := config.get(name), int):
        raise UnsupportedBaseModel(f"the base model's config.json does not say {name}; choose another base model")
    return number
