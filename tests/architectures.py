"""Tiny random models of many architectures, and what is said of those that cannot be used."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from tests.tiny_model import save_tiny_tokenizer

_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
_EXPERTS = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
_LATENT = {
    "q_lora_rank": None,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
    "n_group": 1,
    "topk_group": 1,
}
_NO_HEADS = {"num_key_value_heads": None}
_STATES = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_expand": 2}
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 6,
    "long_factor": [2.0, 2.5, 3.0, 3.5, 4.0, 4.5],
    "original_max_position_embeddings": 512,
    "partial_rotary_factor": 0.75,
    "factor": 4.0,
}


@dataclass(frozen=True)
class Architecture:
    """One kind of model.

    Attributes:
        refused: a word that the refusal names the part with; None: it works.
        settings: of its configuration, beside the common ones.
        layers: how many it has.
        text: settings of the language model in a multimodal one.
    """

    model_type: str
    refused: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    layers: int = 2
    text: dict[str, Any] | None = None


A = Architecture
ARCHITECTURES = {
    "llama": A("llama"),
    "llama-tied": A("llama", settings={"tie_word_embeddings": True}),
    "llama3-rope": A(
        "llama",
        settings={
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 256,
            }
        },
    ),
    "llama-dynamic-ntk": A(
        "llama", settings={"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}}
    ),
    "mistral-null": A("mistral", settings={"sliding_window": None}),
    "mistral-4096": A("mistral", "sliding_window", {"sliding_window": 4096}),
    "mistral-64": A("mistral", "sliding_window", {"sliding_window": 64}),
    "ministral": A(
        "ministral",
        "sliding_window",
        {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"], "head_dim": 16},
    ),
    "ministral3": A("ministral3", settings={"head_dim": 16, "sliding_window": None}),
    "mistral3": A("mistral3", "vision_config", text={"model_type": "mistral", "head_dim": 16}),
    "mixtral": A("mixtral", "num_local_experts", {"num_local_experts": 4, "sliding_window": None}),
    "qwen2": A("qwen2"),
    "qwen2-64": A(
        "qwen2", "sliding_window", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 0}
    ),
    "qwen3": A("qwen3", settings={"head_dim": 16}),
    "qwen3-moe": A("qwen3_moe", "experts", {"head_dim": 16, **_EXPERTS}),
    "qwen3-next": A("qwen3_next", "linear_attention", {"head_dim": 16, **_EXPERTS, **_STATES}, layers=4),
    "qwen3.5-text": A("qwen3_5_text", "linear_attention", {"head_dim": 16, **_STATES}, layers=4),
    "qwen3.5": A("qwen3_5", "linear_attention", layers=4, text={"head_dim": 16, **_STATES}),
    "gemma": A("gemma", settings={"head_dim": 16}),
    "gemma2": A("gemma2", "attn_logit_softcapping", {"head_dim": 16, "sliding_window": 64}),
    "gemma2-4096": A("gemma2", "attn_logit_softcapping", {"head_dim": 16, "sliding_window": 4096}, layers=4),
    "gemma3-text": A("gemma3_text", "sliding_window", {"head_dim": 16, "sliding_window": 64}, layers=4),
    "gemma3-4b": A("gemma3", "sliding_window", layers=4, text={"head_dim": 16, "sliding_window": 64}),
    "gemma4-text": A(
        "gemma4_text",
        "sliding_window",
        {"head_dim": 16, "global_head_dim": 16, "sliding_window": 64, "hidden_size_per_layer_input": 0},
        layers=4,
    ),
    "gemma4-e2b": A(
        "gemma4",
        "sliding_window",
        layers=4,
        text={"head_dim": 16, "global_head_dim": 16, "sliding_window": 64, "hidden_size_per_layer_input": 16},
    ),
    "phi-2": A("phi", settings={"partial_rotary_factor": 0.5}),
    "phi3": A("phi3", settings={"sliding_window": None}),
    "phi3-mini-4k": A("phi3", "sliding_window", {"sliding_window": 2047}),
    "phi4-mini": A("phi3", "sliding_window", {"sliding_window": 2049, "rope_parameters": _LONG}),
    "phi4-mini-full": A(
        "phi3", settings={"sliding_window": None, "rope_parameters": _LONG, "original_max_position_embeddings": 512}
    ),
    "olmo2": A("olmo2"),
    "olmo3": A("olmo3", "sliding_window", {"sliding_window": 64}, layers=4),
    "olmoe": A("olmoe", "experts", {"num_experts": 4, "num_experts_per_tok": 2}),
    "granite": A(
        "granite",
        "logits_scaling",
        {"logits_scaling": 8.0, "residual_multiplier": 0.22, "embedding_multiplier": 12.0, "attention_multiplier": 0.1},
    ),
    "granite-moe": A("granitemoe", "logits_scaling", {"logits_scaling": 6.0, "num_local_experts": 4}),
    "granite4-dense": A(
        "granitemoehybrid",
        "logits_scaling",
        {
            "logits_scaling": 8.0,
            "num_local_experts": 0,
            "layer_types": ["attention", "attention"],
            "shared_intermediate_size": 128,
        },
    ),
    "granite4-hybrid": A(
        "granitemoehybrid",
        "logits_scaling",
        {
            "logits_scaling": 8.0,
            "num_local_experts": 4,
            "layer_types": ["mamba", "attention"],
            "shared_intermediate_size": 128,
            **_MAMBA,
        },
    ),
    "smollm3": A("smollm3", layers=4),
    "gpt-oss": A("gpt_oss", "sinks", {"head_dim": 16, "num_local_experts": 4, "sliding_window": 64}),
    "gpt-neox": A("gpt_neox", "num_key_value_heads", _NO_HEADS),
    "gpt2": A("gpt2", "Conv1D", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 2048}),
    "gpt-bigcode": A(
        "gpt_bigcode", "max_position_embeddings", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 2048}
    ),
    "opt": A("opt", "num_key_value_heads", {"ffn_dim": 128, "word_embed_proj_dim": 64, **_NO_HEADS}),
    "bloom-alibi": A("bloom", "alibi", {"n_layer": 2, "n_head": 4}),
    "falcon-7b": A("falcon", "num_key_value_heads", {"multi_query": True, "alibi": False, **_NO_HEADS}),
    "falcon-40b": A(
        "falcon",
        "num_key_value_heads",
        {"new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False, **_NO_HEADS},
    ),
    "falcon-rw-alibi": A("falcon", "alibi", {"multi_query": False, "alibi": True, **_NO_HEADS}),
    "stablelm": A("stablelm", "StableLmAttention"),
    "starcoder2-null": A("starcoder2", settings={"sliding_window": None}),
    "starcoder2-4096": A("starcoder2", "sliding_window", {"sliding_window": 4096}),
    "cohere": A("cohere", "logit_scale", {"logit_scale": 0.0625}),
    "cohere2": A("cohere2", "logit_scale", {"logit_scale": 0.0625, "sliding_window": 64}, layers=4),
    "glm4": A("glm4", settings={"head_dim": 16}),
    "exaone4": A("exaone4", settings={"sliding_window": None, "layer_types": ["full_attention"] * 2}),
    "deepseek-v2": A("deepseek_v2", "kv_lora_rank", _LATENT),
    "deepseek-v3": A("deepseek_v3", "kv_lora_rank", _LATENT),
    "bamba": A("bamba", "linear_attention", {"attn_layer_indices": [1], **_MAMBA}),
    "mamba2": A("mamba2", "linear_attention", {"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 1}),
    "falcon-h1": A("falcon_h1", "hybrid", _MAMBA | {"mamba_d_ssm": 128}),
    "lfm2": A(
        "lfm2",
        "conv",
        {"layer_types": ["conv", "full_attention"], "block_ff_dim": 128, "block_auto_adjust_ff_dim": False},
    ),
    "llama4": A(
        "llama4_text",
        "chunked_attention",
        {"num_local_experts": 2, "head_dim": 16, "intermediate_size_mlp": 128},
        layers=4,
    ),
}


def make_model(architecture: Architecture, folder: Path) -> Path:
    """A random model in ``folder``: the same bytes every time."""
    size, ids = save_tiny_tokenizer(folder)
    common = _SHAPE | {"num_hidden_layers": architecture.layers, "vocab_size": size, "initializer_range": 0.2, **ids}
    if architecture.text is None:
        settings = common | architecture.settings
        if settings["num_key_value_heads"] is None:
            del settings["num_key_value_heads"]
        config = AutoConfig.for_model(architecture.model_type, **settings)
        kind: Any = AutoModelForCausalLM
    else:
        text = common | architecture.text
        vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = AutoConfig.for_model(
            architecture.model_type, text_config=text, vision_config=vision, **architecture.settings
        )
        kind = AutoModelForImageTextToText
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind.from_config(config)
    model.save_pretrained(folder)
    return folder
