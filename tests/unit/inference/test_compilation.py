"""A context compiled once is the context compiled any other way."""

import pytest
import torch

from manyicl_core.inference.compilation import Compilation, compile_prefix
from manyicl_core.inference.decoding import answers
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from manyicl_core.inference.prefix import EMPTY_PREFIX, Prefix
from tests.unit.inference.conftest import MakeAdapter

TOKENS = tuple(range(30, 67))


def assert_same(first: Prefix, second: Prefix) -> None:
    assert first.tokens == second.tokens
    for one, other in zip(first.layers, second.layers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_prefix_holds_grouped_keys_and_values_of_every_layer(untuned: TunedModel):
    prefix = compile_prefix(untuned, TOKENS)
    assert [tensor.shape for layer in prefix.layers for tensor in layer] == [(1, 2, len(TOKENS), 16)] * 4
    assert prefix.size_bytes == 2 * 2 * 2 * len(TOKENS) * 16 * 4


def test_a_prefix_has_memory_of_its_own_to_the_byte(untuned: TunedModel):
    prefix = compile_prefix(untuned, TOKENS)
    [owner] = {tensor.untyped_storage().data_ptr() for layer in prefix.layers for tensor in layer}
    storage = prefix.layers[0][0].untyped_storage()
    assert (storage.data_ptr(), storage.nbytes()) == (owner, prefix.size_bytes)


@pytest.mark.parametrize("chunk", [1, 5, len(TOKENS), 1000])
def test_chunks_of_any_size_give_the_same_prefix_and_states(untuned: TunedModel, chunk: int):
    compilation = Compilation(untuned, TOKENS)
    states = []
    while compilation.left:
        done = compilation.done
        states.append(compilation.advance(chunk))
        assert compilation.done == min(done + chunk, len(TOKENS)) == done + len(states[-1])
    assert_same(compilation.prefix(), compile_prefix(untuned, TOKENS))
    torch.testing.assert_close(torch.cat(states), untuned.states(torch.tensor(TOKENS)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("done", [1, 20, len(TOKENS) - 1])
def test_a_prefix_is_extended_without_change_to_where_it_began(untuned: TunedModel, done: int):
    start = compile_prefix(untuned, TOKENS[:done])
    copy = Prefix(start.tokens, tuple((keys.clone(), values.clone()) for keys, values in start.layers))
    assert_same(compile_prefix(untuned, TOKENS, start), compile_prefix(untuned, TOKENS))
    assert_same(start, copy)


def test_nothing_to_add_gives_the_start_itself(untuned: TunedModel):
    start = compile_prefix(untuned, TOKENS)
    assert compile_prefix(untuned, TOKENS, start) is start
    assert compile_prefix(untuned, ()) is EMPTY_PREFIX


def test_a_prefix_of_other_tokens_cannot_be_extended(untuned: TunedModel):
    with pytest.raises(AssertionError):
        compile_prefix(untuned, TOKENS, compile_prefix(untuned, (5, 6)))


def test_the_start_of_a_prefix_is_that_of_fewer_tokens(untuned: TunedModel):
    assert_same(compile_prefix(untuned, TOKENS).start(20), compile_prefix(untuned, TOKENS[:20]))


def test_answering_leaves_a_prefix_as_it_is(untuned: TunedModel):
    prefix = compile_prefix(untuned, TOKENS)
    answers(untuned, prefix, [[5, 6], [7]], 5, frozenset())
    assert_same(prefix, compile_prefix(untuned, TOKENS))


def test_adapters_compile_prefixes_of_their_own(model: LanguageModel, make_adapter: MakeAdapter):
    before = compile_prefix(TunedModel(model), TOKENS)
    model.attach("one", make_adapter(1))
    tuned = compile_prefix(TunedModel(model, "one"), TOKENS)
    assert_same(compile_prefix(TunedModel(model), TOKENS), before)
    assert not torch.allclose(tuned.layers[0][0], before.layers[0][0], atol=0.01)
