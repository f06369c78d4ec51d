"""Whatever goes wrong ends the requests that it concerns, and the engine goes on."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from manyicl_core.inference import engine as engine_module
from manyicl_core.inference.adapters import Adapters
from manyicl_core.inference.answer import Sampling
from manyicl_core.inference.guides import guide_of
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.requests import (
    Delta,
    Generation,
    LabelScores,
    LabelScoring,
    OutOfMemory,
    PromptLogprobs,
    Refusal,
)
from manyicl_core.inference.tickets import Ticket
from manyicl_core.inference.vocabulary import Vocabulary
from tests.unit.inference.conftest import MakeAdapter, save_whole_model
from tests.unit.inference.driving import CONTEXT, SHOWN, Driven
from tests.unit.inference.greedy import plain_greedy

SHORT = Generation(adapter=None, prompt=(*CONTEXT, 10, 11), prefix_tokens=len(CONTEXT), max_tokens=8, sampling=SHOWN)
LONG = tuple(3 + (5 * number * number) % 380 for number in range(700))

REQUESTS: dict[str, Generation | LabelScoring] = {
    "a short answer": replace(SHORT, prefix_tokens=0),
    "a context": replace(SHORT, prompt=LONG, prefix_tokens=650),
    "a long query": replace(SHORT, prompt=LONG, prefix_tokens=0),
    "an echo": replace(SHORT, prompt=LONG, prefix_tokens=0, echo=True, max_tokens=2, n=2),
    "labels": LabelScoring(adapter=None, prompt=LONG[:300], prefix_tokens=30, labels=((5, 6, 7), (8, 9), (10,))),
}


@pytest.fixture
def engine(model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path) -> Driven:
    return Driven(model, vocabulary, tmp_path)


class Failing:
    """Stands before a method of the language model; its calls of some numbers fail, each in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, error: Callable[[], Exception]) -> None:
        self.calls = 0
        self.failing: set[int] = set()
        self.always = False
        original = getattr(LanguageModel, name)

        def call(model: LanguageModel, *arguments: object) -> object:
            self.calls += 1
            if self.always or self.calls in self.failing:
                raise error()
            return original(model, *arguments)

        monkeypatch.setattr(LanguageModel, name, call)


def no_memory() -> Exception:
    return RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 1 byte")


def told(engine: Driven, ticket: Ticket) -> tuple[list[object], list[float]]:
    """All that was told: what must be the same every time, and the numbers, which may be rounded otherwise."""
    facts: list[object] = []
    numbers: list[float] = []
    for event in engine.told[ticket]:
        match event:
            case Delta():
                facts.append((event.index, event.text, event.completion_tokens, event.finish_reason))
            case LabelScores():
                numbers += event.scores
            case PromptLogprobs():
                facts.append([entry.token for entry in event.logprobs])
                numbers += [entry.logprob for entry in event.logprobs]
            case Refusal():
                raise event
    assert facts or numbers
    return facts, numbers


def clear(engine: Driven) -> None:
    """Nothing is held, set aside or written any more."""
    assert not engine.step()
    engine.prefixes.shrink()
    assert engine.prefixes.size_bytes == 0


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_without_memory_for_a_moment_while_answers_begin_none_is_lost_or_begun_twice(
    engine: Driven, monkeypatch: pytest.MonkeyPatch, failing: int
):
    calls = []

    def short_of_memory(request: Generation):
        calls.append(request)
        if len(calls) == failing:
            raise no_memory()
        return guide_of(request)

    monkeypatch.setattr(engine_module, "guide_of", short_of_memory)
    asked = Generation(adapter=None, prompt=(5, 6, 7), max_tokens=4, n=3)
    ticket = engine.submit(asked)
    engine.finish()
    assert [delta.completion_tokens for delta in engine.deltas(ticket) if delta.finish_reason] == [4, 4, 4]
    assert {engine.text(ticket, number) for number in range(3)} == {engine.text(ticket)}
    assert len(calls) == 4
    clear(engine)


@pytest.mark.parametrize("name", ["states", "logits", "new_layers"])
@pytest.mark.parametrize("asked", REQUESTS.values(), ids=REQUESTS)
def test_without_memory_for_a_moment_the_answer_is_the_same(
    engine: Driven, monkeypatch: pytest.MonkeyPatch, asked: Generation | LabelScoring, name: str
):
    """Whichever call it is that fails."""
    failing = Failing(monkeypatch, name, no_memory)
    first = engine.submit(asked)
    engine.finish()
    expected, expected_numbers = told(engine, first)
    clear(engine)
    for number in range(1, failing.calls + 1):
        failing.calls, failing.failing = 0, {number}
        again = engine.submit(asked)
        engine.finish()
        assert told(engine, again) == (expected, pytest.approx(expected_numbers, abs=1e-3)), number
        clear(engine)


@pytest.mark.parametrize("name", ["states", "logits", "new_layers"])
@pytest.mark.parametrize("asked", REQUESTS.values(), ids=REQUESTS)
def test_without_memory_the_request_is_refused_and_the_next_one_answered(
    engine: Driven, monkeypatch: pytest.MonkeyPatch, asked: Generation | LabelScoring, name: str
):
    failing = Failing(monkeypatch, name, no_memory)
    failing.always = True
    refused = engine.submit(asked)
    engine.finish()
    refusal = engine.refusal(refused)
    assert isinstance(refusal, OutOfMemory) and refusal.status == 503
    clear(engine)
    failing.always = False
    again = engine.submit(asked)
    engine.finish()
    assert told(engine, again)


def test_contexts_that_nobody_uses_make_room(engine: Driven, monkeypatch: pytest.MonkeyPatch):
    engine.answer(SHORT)
    assert engine.prefixes.size_bytes > 0
    failing = Failing(monkeypatch, "states", no_memory)
    failing.failing = {1}
    engine.answer(replace(SHORT, prefix_tokens=0))
    assert engine.prefixes.size_bytes == 0


def test_a_context_is_held_once_even_if_the_request_begins_twice(engine: Driven, monkeypatch: pytest.MonkeyPatch):
    asked = replace(SHORT, prompt=LONG, prefix_tokens=100)
    expected, _ = engine.answer(asked)
    failing = Failing(monkeypatch, "new_layers", no_memory)
    failing.failing = {1}
    assert engine.answer(asked)[0] == expected
    clear(engine)


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_memory_has_run_out_in_any_words(engine: Driven, monkeypatch: pytest.MonkeyPatch, error: type[Exception]):
    Failing(monkeypatch, "states", error).always = True
    ticket = engine.submit(SHORT)
    engine.finish()
    assert isinstance(engine.refusal(ticket), OutOfMemory)


def test_a_failure_ends_the_requests_in_that_piece_of_work_alone(
    engine: Driven, plain: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
):
    writing = engine.submit(replace(SHORT, max_tokens=20))
    engine.steps(3)
    failing = Failing(monkeypatch, "states", lambda: ValueError("something unforeseen"))
    failing.failing = {1}  # the chunk of a context, before the others' next step
    compiling = engine.submit(replace(SHORT, prompt=LONG, prefix_tokens=600))
    waiting = engine.submit(SHORT)
    engine.finish()
    refusal = engine.refusal(compiling)
    assert (refusal.status, refusal.code) == (500, "engine_error")
    assert "unforeseen" not in refusal.message, "the story is the log's"
    assert engine.tokens(writing) == plain_greedy(plain, SHORT.prompt, 20)
    assert engine.tokens(waiting) == plain_greedy(plain, SHORT.prompt, SHORT.max_tokens)
    clear(engine)


def test_after_a_failed_step_of_many_answers_the_next_ones_are_right(
    engine: Driven, plain: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
):
    failing = Failing(monkeypatch, "logits", lambda: ValueError("something unforeseen"))
    lost = [engine.submit(replace(SHORT, n=3)), engine.submit(SHORT)]
    engine.steps(2)
    failing.failing = {failing.calls + 1}
    engine.steps(1)
    assert all(type(engine.refusal(ticket)) is Refusal for ticket in lost)
    clear(engine)
    ticket = engine.submit(SHORT)
    engine.finish()
    assert engine.tokens(ticket) == plain_greedy(plain, SHORT.prompt, SHORT.max_tokens)


class Poison:
    """A guide that fails in the middle of an answer."""

    is_complete = False

    def __init__(self, error: Exception) -> None:
        self._error = error

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        raise self._error

    def accept(self, token: int) -> list[int]:
        return []


def test_one_answer_that_cannot_go_on_takes_no_other_with_it(
    engine: Driven, plain: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
):
    good = [engine.submit(SHORT), engine.submit(replace(SHORT, max_tokens=20))]
    engine.steps(2)
    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "guide_of", lambda *_: Poison(ValueError("something unforeseen")))
        bad = engine.submit(replace(SHORT, n=2))
        engine.steps(1)
    good.append(engine.submit(SHORT))
    engine.finish()
    assert engine.refusal(bad).status == 500
    for ticket in good:
        request = ticket.request
        assert isinstance(request, Generation)
        assert engine.tokens(ticket) == plain_greedy(plain, request.prompt, request.max_tokens)
    clear(engine)


@pytest.mark.parametrize("error", [no_memory, lambda: ValueError("something unforeseen")])
def test_weights_that_cannot_be_loaded_end_their_request_alone(
    engine: Driven, monkeypatch: pytest.MonkeyPatch, make_adapter: MakeAdapter, error: Callable[[], Exception]
):
    adapter = engine.stored(make_adapter(1))

    def fail(*_: object) -> None:
        raise error()

    with monkeypatch.context() as patch:
        patch.setattr(Adapters, "_load", fail)
        refused, other = engine.submit(replace(SHORT, adapter=adapter)), engine.submit(SHORT)
        engine.finish()
        assert engine.refusal(refused).status == (503 if error is no_memory else 500)
        assert engine.tokens(other)
    assert engine.answer(replace(SHORT, adapter=adapter))
    clear(engine)


def test_a_disk_that_fails_ends_its_request_alone(engine: Driven, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(type(engine.prefixes), "hold", fail)
        refused, other = engine.submit(SHORT), engine.submit(replace(SHORT, prefix_tokens=0))
        engine.finish()
        assert engine.refusal(refused).status == 500
        assert engine.tokens(other)
    assert engine.answer(SHORT)


def test_a_whole_model_that_nobody_waits_for_any_more_can_go(engine: Driven, tiny_model: Path, tmp_path: Path):
    first, second = (engine.stored(save_whole_model(tiny_model, tmp_path / f"whole-{seed}", seed)) for seed in (1, 2))
    ticket = engine.submit(replace(SHORT, adapter=first, max_tokens=100))
    while not engine.told[ticket]:
        engine.step()
    assert ticket.model is not None
    held = weakref.ref(ticket.model.language_model)
    ticket.cancelled = True
    del engine.told[ticket], ticket
    engine.answer(replace(SHORT, adapter=second))
    gc.collect()
    assert held() is None


def test_a_seed_of_any_size_and_any_temperature_are_drawn_from(engine: Driven):
    for temperature in (1e-45, 1e-320, 1e9):
        for seed in (-5, 2**70):
            engine.answer(replace(SHORT, sampling=Sampling(temperature=temperature, seed=seed, logprobs=0)))
