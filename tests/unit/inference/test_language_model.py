"""One base model with adapters beside it: switching is exact, and the base stays what it was."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import DynamicCache, PreTrainedModel

from manyicl_core.inference.language_model import LanguageModel
from tests.tiny_model import MAX_POSITIONS
from tests.unit.inference.conftest import load_tiny

TOKENS = torch.arange(30, 60).unsqueeze(0)


def logits_of(model: LanguageModel) -> torch.Tensor:
    return model.logits(model.hidden_states(TOKENS, DynamicCache())[0])


@torch.no_grad()
def plain_logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=TOKENS).logits[0]


def test_the_base_alone_gives_the_plain_models_logits(base_only: LanguageModel, plain: PreTrainedModel):
    torch.testing.assert_close(logits_of(base_only), plain_logits(plain))
    assert (base_only.dtype, base_only.device.type, base_only.max_tokens) == (torch.float32, "cpu", MAX_POSITIONS)


def test_each_adapter_answers_as_peft_alone_would(model: LanguageModel, tiny_model: Path, make_adapter):
    expected = {
        seed: plain_logits(PeftModel.from_pretrained(load_tiny(tiny_model), str(make_adapter(seed))).eval())
        for seed in (1, 2)
    }
    assert not torch.allclose(expected[1], expected[2], atol=0.1)
    for seed in (1, 2):
        model.attach(f"adapter {seed}", make_adapter(seed))
    for seed in (1, 2, 1):
        model.activate(f"adapter {seed}")
        torch.testing.assert_close(logits_of(model), expected[seed])


def test_the_base_is_unchanged_by_adapters_that_came_and_went(model: LanguageModel, make_adapter):
    before = logits_of(model)
    model.activate(None)
    model.attach("one", make_adapter(1))
    model.activate("one")
    assert not torch.allclose(logits_of(model), before, atol=0.1)
    model.activate(None)
    assert torch.equal(logits_of(model), before)
    model.attach("two", make_adapter(2))
    model.activate(None)
    assert torch.equal(logits_of(model), before)
    model.activate("two")
    model.detach("one")
    model.detach("two")
    model.activate(None)
    assert torch.equal(logits_of(model), before)


def test_a_detached_adapter_is_gone_and_can_come_back(model: LanguageModel, make_adapter):
    model.attach("one", make_adapter(1))
    model.activate("one")
    tuned = logits_of(model)
    assert model.attached("one")
    model.detach("one")
    assert not model.attached("one")
    with pytest.raises(ValueError, match="not found"):
        model.activate("one")
    model.attach("one", make_adapter(1))
    model.activate("one")
    assert torch.equal(logits_of(model), tuned)


def test_nothing_that_computes_an_answer_keeps_a_graph(model: LanguageModel, make_adapter):
    model.attach("one", make_adapter(1))
    model.activate("one")
    assert not logits_of(model).requires_grad
