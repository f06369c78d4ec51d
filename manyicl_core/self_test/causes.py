"""Names for what a model has that is not supported: they explain a difference, and never decide that there is one."""

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

_OTHER_LAYERS = "some of its layers are of another kind than full attention"
_SETTINGS = {
    "logits_scaling": "its logits are scaled",
    "logit_scale": "its logits are scaled",
    "final_logit_softcapping": "its logits are bounded",
    "attn_logit_softcapping": "its attention's scores are bounded",
    "kv_lora_rank": "its keys and values are one compressed state",
}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def named_causes(config: PreTrainedConfig, model: PreTrainedModel | None) -> list[str]:
    """What in the configuration, or in the model so far as it could be made, is known to be unsupported."""
    return list(dict.fromkeys([*_of_config(config.get_text_config()), *_of_model(config, model)]))


def attention_of(model: PreTrainedModel | None) -> str | None:
    """What transformers calls the attention of the model's layers."""
    layers = [] if model is None else [module for module in model.modules() if hasattr(module, "layer_idx")]
    return type(layers[-1]).__name__ if layers else None


def _of_config(text: PreTrainedConfig) -> Iterator[str]:
    def setting(name: str) -> Any:
        return getattr(text, name, None)

    for name, part in _SETTINGS.items():
        if setting(name) not in (None, False, 0, 1):
            yield f"{part} ({name})"
    if setting("alibi") or text.model_type == "bloom":
        yield "its attention counts the distance of tokens (alibi)"
    kinds = set(setting("layer_types") or [])
    if "sliding_attention" in kinds or (not kinds and setting("sliding_window") is not None):
        yield f"its attention looks back {setting('sliding_window')} tokens only (sliding_window)"
    if others := sorted(kinds - {"full_attention", "sliding_attention", "attention"}):
        yield f"{_OTHER_LAYERS} (layer_types: {', '.join(others)})"
    for name in _EXPERTS:
        if name not in text.attribute_map and isinstance(number := setting(name), int) and number > 1:
            yield f"it chooses among experts, whose weights plain LoRA does not adapt ({name})"
    if setting("num_attention_heads") and not setting("num_key_value_heads"):
        yield "its configuration does not say how many heads of keys there are (num_key_value_heads)"
    for name in ("max_position_embeddings", "num_attention_heads"):
        if name in text.attribute_map:
            yield f"its config.json does not say {name}"


def _of_model(config: PreTrainedConfig, model: PreTrainedModel | None) -> Iterator[str]:
    for name in ("vision_config", "audio_config"):
        if getattr(config, name, None) is not None:
            yield f"it reads more than text ({name})"
    if model is None:
        return
    if any(name.rpartition(".")[2] == "sinks" for name, _ in model.named_parameters()):
        yield "its attention has sinks (self_attn.sinks)"
    head = model.get_output_embeddings()
    kinds = {type(module).__name__ for module in model.modules() if module is not head and _is_conv1d(module)}
    for kind in sorted(kinds):
        yield f"its layers are not linear layers ({kind})"


def _is_conv1d(module: nn.Module) -> bool:
    return type(module).__name__ == "Conv1D"
