"""A context compiled once is the context compiled any other way."""

from pathlib import Path

import pytest
import torch

from manyicl_core.inference import prefix as prefix_module
from manyicl_core.inference.decoding import answers
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix import EMPTY_PREFIX, Prefix, compile_prefix

TOKENS = tuple(range(30, 67))


def assert_same(first: Prefix, second: Prefix) -> None:
    assert first.tokens == second.tokens
    for one, other in zip(first.layers, second.layers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_prefix_holds_grouped_keys_and_values_of_every_layer(base_only: LanguageModel):
    prefix = compile_prefix(base_only, TOKENS)
    assert [tensor.shape for layer in prefix.layers for tensor in layer] == [(1, 2, len(TOKENS), 16)] * 4
    assert prefix.size_bytes == 2 * 2 * 2 * len(TOKENS) * 16 * 4


@pytest.mark.parametrize("chunk", [1, 5, len(TOKENS), 1000])
def test_chunks_of_any_size_give_the_same_prefix(base_only: LanguageModel, monkeypatch: pytest.MonkeyPatch, chunk: int):
    whole = compile_prefix(base_only, TOKENS)
    monkeypatch.setattr(prefix_module, "_CHUNK", chunk)
    assert_same(compile_prefix(base_only, TOKENS), whole)


@pytest.mark.parametrize("done", [1, 20, len(TOKENS) - 1])
def test_a_prefix_is_extended_without_change_to_where_it_began(base_only: LanguageModel, done: int):
    start = compile_prefix(base_only, TOKENS[:done])
    copy = Prefix(start.tokens, tuple((keys.clone(), values.clone()) for keys, values in start.layers))
    assert_same(compile_prefix(base_only, TOKENS, start), compile_prefix(base_only, TOKENS))
    assert_same(start, copy)


def test_nothing_to_add_gives_the_start_itself(base_only: LanguageModel):
    start = compile_prefix(base_only, TOKENS)
    assert compile_prefix(base_only, TOKENS, start) is start
    assert compile_prefix(base_only, ()) is EMPTY_PREFIX


def test_a_prefix_of_other_tokens_cannot_be_extended(base_only: LanguageModel):
    with pytest.raises(AssertionError):
        compile_prefix(base_only, TOKENS, compile_prefix(base_only, (5, 6)))


def test_answering_leaves_a_prefix_as_it_is(base_only: LanguageModel):
    prefix = compile_prefix(base_only, TOKENS)
    answers(base_only, prefix, [[5, 6], [7]], 5, frozenset())
    assert_same(prefix, compile_prefix(base_only, TOKENS))


def test_adapters_compile_prefixes_of_their_own(model: LanguageModel, make_adapter):
    folder: Path = make_adapter(1)
    before = compile_prefix(model, TOKENS)
    model.attach("one", folder)
    model.activate("one")
    tuned = compile_prefix(model, TOKENS)
    model.activate(None)
    assert_same(compile_prefix(model, TOKENS), before)
    assert not torch.allclose(tuned.layers[0][0], before.layers[0][0], atol=0.01)
