"""One request after the other: contexts compiled once, answers piece by piece, and why they ended."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.inference.adapters import Adapters, UnknownAdapter
from manyicl_core.inference.decoding import Sampling
from manyicl_core.inference.engine import Delta, Engine, Generation
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix_store import PrefixStore
from manyicl_core.objects import open_store, put_weights, sha256_of, weights_key
from manyicl_core.training.weights import save_weights
from tests.tiny_model import MAX_POSITIONS
from tests.unit.inference.conftest import MakeAdapter, load_tiny
from tests.unit.inference.greedy import plain_greedy

CONTEXT = tuple(range(40, 75))
REQUEST = Generation(
    adapter=None,
    prompt=(*CONTEXT, 10, 11, 12),
    prefix_tokens=len(CONTEXT),
    max_tokens=12,
    sampling=Sampling(),
    stop_texts=[],
    stop_tokens=frozenset(),
    choices=None,
)


@pytest.fixture
def adapter(make_adapter: MakeAdapter, tmp_path: Path) -> str:
    """The hash of an adapter in the engine's artifact store."""
    digest = sha256_of(make_adapter(1) / "adapter_model.safetensors")
    open_store(f"file://{tmp_path}/store").put_folder(weights_key(digest), make_adapter(1))
    return digest


@pytest.fixture
def engine(model: LanguageModel, tokenizer: Tokenizer, tmp_path: Path) -> Engine:
    (tmp_path / "scratch").mkdir()
    adapters = Adapters(model, open_store(f"file://{tmp_path}/store"), tmp_path / "scratch", 2)
    return Engine(model, tokenizer, adapters, PrefixStore(1 << 20))


def answer(engine: Engine, request: Generation) -> tuple[str, Delta]:
    """The whole text and the last piece; only that one says why the answer ended."""
    deltas = list(engine.generate(request, threading.Event()))
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    return "".join(delta.text for delta in deltas), deltas[-1]


def test_an_answer_is_the_plain_models_and_ends_at_its_length(
    engine: Engine, plain: PreTrainedModel, tokenizer: Tokenizer
):
    expected = tokenizer.decode(plain_greedy(plain, REQUEST.prompt, 12))
    text, last = answer(engine, REQUEST)
    assert expected.startswith(text)
    assert set(expected[len(text) :]) <= {"\ufffd"}
    assert (last.finish_reason, last.completion_tokens) == ("length", 12)
    assert engine.max_tokens == MAX_POSITIONS


@pytest.mark.parametrize("prefix_tokens", [0, 5, len(CONTEXT), len(REQUEST.prompt), 1000])
def test_wherever_the_context_is_said_to_end_the_answer_is_the_same(engine: Engine, prefix_tokens: int):
    text, _ = answer(engine, REQUEST)
    assert answer(engine, replace(REQUEST, prefix_tokens=prefix_tokens))[0] == text


def test_a_context_is_compiled_once_for_all_its_queries(engine: Engine):
    assert answer(engine, REQUEST)[1].cached_tokens == 0
    assert answer(engine, REQUEST)[1].cached_tokens == len(CONTEXT)
    assert answer(engine, replace(REQUEST, prompt=(*CONTEXT, 20)))[1].cached_tokens == len(CONTEXT)
    assert answer(engine, replace(REQUEST, prompt=(*CONTEXT[:-1], 20, 21)))[1].cached_tokens == 0
    assert answer(engine, replace(REQUEST, prefix_tokens=0))[1].cached_tokens == 0


def test_an_adapter_never_answers_from_the_bases_context(engine: Engine, adapter: str):
    base, _ = answer(engine, REQUEST)
    tuned, last = answer(engine, replace(REQUEST, adapter=adapter))
    assert last.cached_tokens == 0
    assert tuned != base
    again, last = answer(engine, replace(REQUEST, adapter=adapter))
    assert (again, last.cached_tokens) == (tuned, len(CONTEXT))
    assert answer(engine, REQUEST)[0] == base


def test_a_whole_model_never_answers_from_the_bases_context(engine: Engine, tiny_model: Path, tmp_path: Path):
    whole = load_tiny(tiny_model)
    for parameter in whole.parameters():
        parameter.mul_(1.5)
    (tmp_path / "whole").mkdir()
    whole.requires_grad_(True)  # what is trained is what is saved
    save_weights(whole, tmp_path / "whole")
    weights = put_weights(open_store(f"file://{tmp_path}/store"), tmp_path / "whole")
    base, _ = answer(engine, REQUEST)
    tuned, last = answer(engine, replace(REQUEST, adapter=weights))
    assert last.cached_tokens == 0
    assert tuned != base
    again, last = answer(engine, replace(REQUEST, adapter=weights))
    assert (again, last.cached_tokens) == (tuned, len(CONTEXT))
    assert answer(engine, REQUEST)[0] == base


def test_an_unknown_adapter_is_refused(engine: Engine):
    with pytest.raises(UnknownAdapter):
        next(engine.generate(replace(REQUEST, adapter="0" * 64), threading.Event()))


def test_a_stop_token_ends_the_answer_and_is_not_shown(engine: Engine, plain: PreTrainedModel, tokenizer: Tokenizer):
    written = plain_greedy(plain, REQUEST.prompt, 12)
    stop = written[6]
    before = written[: written.index(stop)]
    text, last = answer(engine, replace(REQUEST, stop_tokens=frozenset({stop})))
    assert tokenizer.decode(before).startswith(text)
    assert (last.finish_reason, last.completion_tokens) == ("stop", len(before) + 1)


def test_a_stop_text_ends_the_answer_and_is_not_shown(engine: Engine):
    whole, _ = answer(engine, REQUEST)
    stop = whole[len(whole) // 2 :][:3]
    text, last = answer(engine, replace(REQUEST, stop_texts=[stop]))
    assert text == whole[: whole.index(stop)]
    assert last.finish_reason == "stop"
    assert last.completion_tokens < 12


def test_a_closed_choice_is_answered_with_one_of_its_texts(engine: Engine, tiny_model: Path):
    encoder = load_encoder(tiny_model)
    labels = ["complaint", "praise", "question"]
    request = replace(
        REQUEST,
        max_tokens=100,
        stop_tokens=frozenset({encoder.stop}),
        choices=[encoder.answer(label) for label in labels],
    )
    text, last = answer(engine, request)
    assert text in {f" {label}" for label in labels}
    assert last.finish_reason == "stop"
    assert last.completion_tokens == len(encoder.answer(text))


def test_a_cancelled_request_ends_without_another_word(engine: Engine):
    cancelled = threading.Event()
    deltas = engine.generate(REQUEST, cancelled)
    assert next(deltas).finish_reason is None
    cancelled.set()
    assert list(deltas) == []
