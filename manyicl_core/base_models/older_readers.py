"""A model's configuration and tokenizer in forms that transformers 4 and 5 both read. No torch.

Version 5 writes forms of its own. Version 4 takes some of them for an error, and passes over others:
without the base of its rotary positions a model answers, but wrongly.
"""

import json
from collections.abc import Callable
from typing import Any


def readable_by_all(name: str, content: bytes) -> bytes:
    """The content of a model's file of this name with what older readers need; other files stay as they are."""
    change = _CHANGES.get(name)
    if change is None:
        return content
    values = json.loads(content)
    change(values)
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


def _model_config(config: dict[str, Any]) -> None:
    rotary = config.get("rope_parameters") or {}
    if "rope_theta" in rotary:  # in some families each kind of layer has its own; version 4 never read those
        config.setdefault("rope_theta", rotary["rope_theta"])
        if rotary.get("rope_type", "default") != "default":
            config.setdefault("rope_scaling", {key: rotary[key] for key in rotary if key != "rope_theta"})
    if "dtype" in config:
        config.setdefault("torch_dtype", config["dtype"])


def _tokenizer_config(config: dict[str, Any]) -> None:
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"


def _tokenizer(tokenizer: dict[str, Any]) -> None:
    merges = tokenizer["model"].get("merges", [])
    if all(isinstance(merge, list) and not any(" " in part for part in merge) for merge in merges):
        tokenizer["model"]["merges"] = [" ".join(merge) for merge in merges]


_CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "config.json": _model_config,
    "tokenizer_config.json": _tokenizer_config,
    "tokenizer.json": _tokenizer,
}
