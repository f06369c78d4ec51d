"""Models of several families answer as transformers' own layers do, with and without an adapter."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from manyicl_core.inference.answer import GREEDY, Answer
from manyicl_core.inference.compilation import compile_prefix
from manyicl_core.inference.decoding import Decoder, Row
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from tests.unit.inference.greedy import plain_greedy

SIZES: dict[str, Any] = {
    "vocab_size": 384,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS = {
    "Llama": LlamaConfig(**SIZES),
    "Llama, all heads its own": LlamaConfig(**{**SIZES, "num_key_value_heads": 6}),
    "Llama with biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "Llama with tied embeddings": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "Llama with stretched positions": LlamaConfig(
        **SIZES, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    ),
    "Mistral": MistralConfig(**SIZES, sliding_window=None, head_dim=8),
    "Qwen2": Qwen2Config(**SIZES),
    "Qwen3": Qwen3Config(**SIZES, head_dim=8),
    "Phi3": Phi3Config(**SIZES),
}


def made(config: PreTrainedConfig) -> PreTrainedModel:
    """The same weights every time, biases included."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    model.requires_grad_(False)
    return model


def save_adapter(config: PreTrainedConfig, folder: Path) -> Path:
    peft_model = get_peft_model(made(config), LoraConfig(r=3, lora_alpha=6, target_modules="all-linear"))
    for name, parameter in peft_model.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    peft_model.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_answers_are_those_of_the_plain_model(config: PreTrainedConfig, tmp_path: Path):
    rng = random.Random(1)
    context = tuple(rng.randrange(3, 384) for _ in range(40))
    queries = [[rng.randrange(3, 384) for _ in range(count)] for count in (1, 4, 9)]
    folder = save_adapter(config, tmp_path)
    plain = {None: made(config), "tuned": PeftModel.from_pretrained(made(config), str(folder)).eval()}
    model = LanguageModel(made(config))
    model.attach("tuned", folder)
    prefixes = {adapter: compile_prefix(TunedModel(model, adapter), context) for adapter in plain}
    decoder = Decoder(model)
    rows = [
        Row(adapter, prefixes[adapter], list(query), Answer(GREEDY, 6, frozenset()))
        for adapter in plain
        for query in queries
    ]
    for row in rows:
        decoder.join(row)
    while decoder.rows:
        decoder.step()
    expected = [plain_greedy(plain[adapter], [*context, *query], 6) for adapter in plain for query in queries]
    assert [row.answer.written for row in rows] == expected
    assert expected[:3] != expected[3:]
    document = torch.tensor([*context, *queries[2]])
    found = model.logits(TunedModel(model).states(document))
    with torch.no_grad():
        torch.testing.assert_close(found, plain[None](input_ids=document[None]).logits[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**SIZES, sliding_window=16),
        Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=16, max_window_layers=0),
    ],
    ids=["Mistral", "Qwen2"],
)
def test_a_model_that_forgets_is_refused(config: PreTrainedConfig):
    with pytest.raises(AssertionError, match="cannot be hosted"):
        LanguageModel(made(config))
