"""One base model with adapters beside it: each answers exactly, and the base stays what it was."""

import gc
import weakref
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from manyicl_core.inference.language_model import LanguageModel, TunedModel
from tests.tiny_model import MAX_POSITIONS
from tests.unit.inference.conftest import MakeAdapter, load_tiny

TOKENS = torch.arange(30, 60)


def logits_of(model: LanguageModel, adapter: str | None = None) -> torch.Tensor:
    return model.logits(TunedModel(model, adapter).states(TOKENS))


@torch.no_grad()
def plain_logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=TOKENS[None]).logits[0]


def test_the_base_alone_gives_the_plain_models_logits(base_only: LanguageModel, plain: PreTrainedModel):
    torch.testing.assert_close(logits_of(base_only), plain_logits(plain))
    assert (base_only.dtype, base_only.device.type, base_only.max_tokens) == (torch.float32, "cpu", MAX_POSITIONS)
    assert base_only.vocabulary == plain.config.vocab_size


def test_each_adapter_answers_as_peft_alone_would(model: LanguageModel, tiny_model: Path, make_adapter: MakeAdapter):
    expected = {
        seed: plain_logits(PeftModel.from_pretrained(load_tiny(tiny_model), str(make_adapter(seed))).eval())
        for seed in (1, 2)
    }
    assert not torch.allclose(expected[1], expected[2], atol=0.1)
    for seed in (1, 2):
        model.attach(f"adapter {seed}", make_adapter(seed))
    for seed in (1, 2, 1):
        torch.testing.assert_close(logits_of(model, f"adapter {seed}"), expected[seed], rtol=1e-4, atol=1e-4)


def test_the_base_is_unchanged_by_adapters_that_came_and_went(model: LanguageModel, make_adapter: MakeAdapter):
    before = logits_of(model)
    model.attach("one", make_adapter(1))
    assert not torch.allclose(logits_of(model, "one"), before, atol=0.1)
    assert torch.equal(logits_of(model), before)
    model.attach("two", make_adapter(2))
    logits_of(model, "two")
    assert torch.equal(logits_of(model), before)
    model.detach("one")
    model.detach("two")
    assert torch.equal(logits_of(model), before)


def test_a_detached_adapter_is_gone_and_can_come_back(model: LanguageModel, make_adapter: MakeAdapter):
    model.attach("one", make_adapter(1))
    tuned = logits_of(model, "one")
    assert model.attached("one")
    model.detach("one")
    assert not model.attached("one")
    with pytest.raises(KeyError):
        logits_of(model, "one")
    model.attach("one", make_adapter(1))
    torch.testing.assert_close(logits_of(model, "one"), tuned)


def test_nothing_that_computes_an_answer_keeps_a_graph(model: LanguageModel, make_adapter: MakeAdapter):
    model.attach("one", make_adapter(1))
    assert not logits_of(model, "one").requires_grad


def test_the_memory_of_a_token_is_that_of_its_keys_and_values(base_only: LanguageModel):
    layers = base_only.new_layers(1, 10)
    assert base_only.bytes_a_token * 10 == sum(part.nbytes for layer in layers for part in layer)


def test_weights_that_were_laid_out_anew_are_held_once(tiny_model: Path):
    plain = load_tiny(tiny_model)
    left = [
        weakref.ref(module.weight.untyped_storage())
        for module in plain.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    model = LanguageModel(plain)
    del plain
    gc.collect()
    assert [storage() for storage in left] == [None] * len(left)
    assert logits_of(model).isfinite().all()
