"""Rows behind different prefixes, with different adapters, that come and go: each as if it were alone."""

import random
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from manyicl_core.inference import decoding as decoding_module
from manyicl_core.inference import row_attention as attention_module
from manyicl_core.inference.answer import GREEDY, Answer
from manyicl_core.inference.compilation import Compilation, compile_prefix
from manyicl_core.inference.decoding import Decoder, Row, answers
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from manyicl_core.inference.prefix import EMPTY_PREFIX
from manyicl_core.inference.slots import Slots
from tests.unit.inference.conftest import MakeAdapter, load_tiny
from tests.unit.inference.greedy import plain_greedy

ADAPTERS = [None, "one", "two", "three"]
LENGTHS = [0, 1, 37, 600]


def random_tokens(count: int) -> list[int]:
    return [random.randrange(3, 384) for _ in range(count)]


@pytest.fixture(scope="module")
def tuned(tiny_model: Path, make_adapter: MakeAdapter) -> LanguageModel:
    """A model with three adapters, of which one has gone."""
    model = LanguageModel(load_tiny(tiny_model))
    for seed, name in enumerate(["gone", *ADAPTERS[1:]]):
        assert name is not None
        model.attach(name, make_adapter(seed))
    model.detach("gone")
    return model


@pytest.fixture(scope="module")
def plain_tuned(tiny_model: Path, make_adapter: MakeAdapter) -> dict[str | None, torch.nn.Module]:
    """The same by PEFT, each alone."""
    models: dict[str | None, torch.nn.Module] = {None: load_tiny(tiny_model)}
    for seed, name in enumerate(ADAPTERS[1:], start=1):
        models[name] = PeftModel.from_pretrained(load_tiny(tiny_model), str(make_adapter(seed))).eval()
    return models


@pytest.mark.parametrize("most_scores", [50, 2**21])
@pytest.mark.parametrize("seed", range(3))
def test_rows_that_come_and_go_are_answered_as_by_the_plain_model(
    tuned: LanguageModel, plain_tuned, monkeypatch: pytest.MonkeyPatch, seed: int, most_scores: int
):
    monkeypatch.setitem(attention_module._MOST_SCORES, "cpu", most_scores)
    monkeypatch.setattr(decoding_module, "LONGEST_ROW", 12)
    random.seed(seed)
    prefixes = {
        (adapter, length): compile_prefix(TunedModel(tuned, adapter), tuple(random_tokens(length)))
        for adapter in ADAPTERS
        for length in random.sample(LENGTHS, 2)
    }
    waiting = []
    for _ in range(12):
        adapter, length = random.choice(list(prefixes))
        query = random_tokens(random.choice([1, 2, 5, 30]))
        answer = Answer(GREEDY, random.choice([1, 3, 8, 20]), frozenset({random.randrange(384)}))
        prefix = prefixes[adapter, length]
        waiting.append(([*prefix.tokens, *query], Row(adapter, prefix, query, answer)))
    rows = list(waiting)
    decoder = Decoder(tuned)
    dropped = None
    while waiting or decoder.rows:
        for _ in range(random.randrange(4)):
            if waiting:
                decoder.join(waiting.pop()[1])
        if decoder.rows:
            decoder.step()
        if dropped is None and len(decoder.rows) > 2:
            dropped = decoder.rows[0]
            decoder.leave(dropped)
    assert dropped is not None and dropped.answer.finish is None
    for prompt, row in rows:
        if row is not dropped:
            answer = row.answer
            assert answer.written == plain_greedy(plain_tuned[row.adapter], prompt, answer.max_tokens, answer.stop)


def grouped_model(heads: int, kv_heads: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=384,
        hidden_size=heads * 8,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=1024,
        initializer_range=0.3,
    )
    torch.manual_seed(heads)
    return LlamaForCausalLM(config).eval().requires_grad_(False)


@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (6, 1)])
@pytest.mark.parametrize("rows", [1, 2, 17, 40])
@pytest.mark.parametrize("length", [1, 37, 600])
def test_batches_of_any_size_behind_prefixes_of_any_length(heads: tuple[int, int], rows: int, length: int):
    plain = grouped_model(*heads)
    model = TunedModel(LanguageModel(grouped_model(*heads)))
    random.seed(rows)
    context = random_tokens(length)
    queries = [random_tokens(1 + row % 9) for row in range(rows)]
    prefix = compile_prefix(model, tuple(context))
    found = answers(model, prefix, queries, 5, frozenset())
    for row in {0, rows // 2, rows - 1}:
        assert found[row] == plain_greedy(plain, [*context, *queries[row]], 5)


def test_logits_are_those_of_the_plain_model(base_only: LanguageModel, plain):
    random.seed(5)
    contexts = [tuple(random_tokens(length)) for length in (3, 200)]
    queries = [random_tokens(count) for count in (4, 1, 7)]
    first, second = (compile_prefix(TunedModel(base_only), context) for context in contexts)
    slots = Slots(base_only)
    for _ in queries:
        slots.take()
    states = slots.run([None] * 3, queries, [second, EMPTY_PREFIX, first])
    found = base_only.logits(states)
    with torch.no_grad():
        expected = [
            plain(input_ids=torch.tensor([[*context, *query]])).logits[0, -len(query) :]
            for context, query in zip((contexts[1], (), contexts[0]), queries, strict=True)
        ]
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_no_row_holds_a_copy_of_its_prefix(base_only: LanguageModel):
    prefix = compile_prefix(TunedModel(base_only), tuple(random_tokens(300)))
    decoder = Decoder(base_only)
    for _ in range(8):
        decoder.join(Row(None, prefix, [5, 6], Answer(GREEDY, 3, frozenset())))
    while decoder.rows:
        decoder.step()
        assert decoder._slots.size_bytes < prefix.size_bytes


def test_a_long_row_holds_no_copy_of_its_context_either(
    base_only: LanguageModel, plain, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(decoding_module, "LONGEST_ROW", 10)
    model = TunedModel(base_only)
    random.seed(3)
    context, rest = tuple(random_tokens(300)), tuple(random_tokens(40))
    shared = compile_prefix(model, context)
    compilation = Compilation(model, context + rest, before=shared)
    while compilation.left:
        compilation.advance(16)
    decoder = Decoder(base_only)
    prefixes = [shared, compilation.prefix()]
    rows = [Row(None, prefix, [7, 8], Answer(GREEDY, 25, frozenset())) for prefix in prefixes]
    for row in rows:
        decoder.join(row)
    while decoder.rows:
        decoder.step()
    for row, prefix in zip(rows, prefixes, strict=True):
        assert row.prefix.chain[: len(prefix.chain)] == prefix.chain
        assert sum(part.size_bytes for part in row.prefix.chain[1:]) < shared.size_bytes / 2
        assert row.answer.written == plain_greedy(plain, [*prefix.tokens, 7, 8], 25)


def test_a_model_that_drops_the_rows_on_the_way_is_found_out(base_only: LanguageModel, monkeypatch: pytest.MonkeyPatch):
    prefix = compile_prefix(TunedModel(base_only), (40, 41, 42))
    inner = base_only._base.base_model
    forward = inner.forward

    def forgetful(*arguments, rows=None, **options):
        return forward(*arguments, **options)

    monkeypatch.setattr(inner, "forward", forgetful)
    with pytest.raises(AssertionError):
        answers(TunedModel(base_only), prefix, [[5, 6]], 3, frozenset())
