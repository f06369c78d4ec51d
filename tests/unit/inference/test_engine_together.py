"""Requests over any contexts and models share the engine's steps; each is answered as if it were alone."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from manyicl_core.inference.answer import Sampling
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.requests import DeadlineExceeded, Generation, LabelScores, LabelScoring
from manyicl_core.inference.tickets import Ticket
from manyicl_core.inference.vocabulary import Vocabulary
from tests.unit.inference.conftest import MakeAdapter, load_tiny, save_whole_model
from tests.unit.inference.driving import CONTEXT, SHOWN, Driven
from tests.unit.inference.greedy import is_greedy, plain_greedy

SHORT = Generation(adapter=None, prompt=(*CONTEXT, 10, 11), prefix_tokens=len(CONTEXT), max_tokens=6, sampling=SHOWN)
LONG = tuple(3 + (5 * number * number) % 380 for number in range(1500))


@pytest.fixture
def engine(model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path) -> Driven:
    return Driven(model, vocabulary, tmp_path)


@pytest.fixture
def plain_models(
    engine: Driven, plain: PreTrainedModel, tiny_model: Path, make_adapter: MakeAdapter, tmp_path: Path
) -> dict[str | None, torch.nn.Module]:
    """By the names that the engine knows them by: the base, two adapters and two whole models."""
    models: dict[str | None, torch.nn.Module] = {None: plain}
    for seed in (1, 2):
        tuned = PeftModel.from_pretrained(load_tiny(tiny_model), str(make_adapter(seed))).eval()
        models[engine.stored(make_adapter(seed))] = tuned
        whole = save_whole_model(tiny_model, tmp_path / f"whole-{seed}", seed)
        models[engine.stored(whole)] = load_tiny(whole)
    return models


@pytest.mark.parametrize("seed", range(3))
def test_requests_that_join_at_any_time_are_answered_as_by_the_plain_model(
    engine: Driven, plain_models: dict[str | None, torch.nn.Module], seed: int
):
    rng = random.Random(seed)
    contexts = [tuple(rng.randrange(3, 384) for _ in range(length)) for length in (0, 1, 40, 300)]
    tickets = []
    for _ in range(24):
        context = rng.choice(contexts)
        prompt = (*context, *(rng.randrange(3, 384) for _ in range(rng.choice([1, 3, 20]))))
        request = Generation(
            adapter=rng.choice(list(plain_models)),
            prompt=prompt,
            prefix_tokens=len(context),
            salt=rng.choice("ab"),
            priority=rng.choice([0, 0, 1]),
            max_tokens=rng.choice([1, 4, 12]),
            sampling=SHOWN,
            stop_tokens=frozenset({rng.randrange(384)}),
        )
        tickets.append(engine.submit(request))
        for _ in range(rng.randrange(4)):
            engine.step()
    engine.finish()
    for ticket in tickets:
        request = ticket.request
        assert isinstance(request, Generation)
        plain = plain_models[request.adapter]
        assert is_greedy(plain, request.prompt, engine.tokens(ticket), request.max_tokens, request.stop_tokens)
    assert engine.prefixes.size_bytes <= engine.prefixes.budget_bytes


def test_a_request_that_joins_later_does_not_wait_for_the_others_to_end(engine: Driven):
    long = engine.submit(replace(SHORT, max_tokens=500))
    engine.steps(20)
    short = engine.submit(SHORT)
    engine.steps(SHORT.max_tokens)
    assert len(engine.tokens(short)) == SHORT.max_tokens
    assert len(engine.deltas(long)) == 20 + SHORT.max_tokens


def test_answers_go_on_while_a_long_context_is_compiled(engine: Driven):
    writing = engine.submit(replace(SHORT, max_tokens=500))
    engine.steps(5)
    written = len(engine.deltas(writing))
    compiled = engine.submit(replace(SHORT, prompt=LONG, prefix_tokens=len(LONG) - 1, max_tokens=1))
    steps = 0
    while not engine.told[compiled]:
        engine.steps(1)
        steps += 1
    assert steps > 5
    assert len(engine.deltas(writing)) == written + steps


def test_no_more_answers_than_there_are_rows_are_written_at_once(
    model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path
):
    engine = Driven(model, vocabulary, tmp_path, rows=4)
    tickets = [engine.submit(replace(SHORT, n=n)) for n in (1, 1, 1, 1, 2, 3, 6, 1)]
    most = 0
    while engine.step():
        most = max(most, sum(begun_and_unfinished(engine, ticket) for ticket in tickets))
    assert most <= 4
    for ticket in tickets:
        assert isinstance(ticket.request, Generation)
        for index in range(ticket.request.n):
            assert len(engine.tokens(ticket, index)) == SHORT.max_tokens


def begun_and_unfinished(engine: Driven, ticket: Ticket) -> int:
    deltas = engine.deltas(ticket)
    return len({delta.index for delta in deltas}) - sum(delta.finish_reason is not None for delta in deltas)


def test_a_request_for_more_answers_than_there_are_rows_begins_beside_others(
    model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path
):
    engine = Driven(model, vocabulary, tmp_path, rows=3)
    long = engine.submit(replace(SHORT, max_tokens=50))
    many = engine.submit(replace(SHORT, n=7, tenant="many"))
    small = engine.submit(replace(SHORT, tenant="small"))
    engine.steps(40)
    assert begun_and_unfinished(engine, long) == 1
    assert len(engine.text(many, 6)) and len(engine.text(small))


@pytest.mark.parametrize("crowd", [0, 1, 9])
def test_a_seeded_answer_is_the_same_whatever_else_is_written(engine: Driven, crowd: int):
    sampling = Sampling(temperature=1.2, top_p=0.9, seed=5, presence_penalty=0.5, logprobs=0)
    alone = engine.submit(replace(SHORT, sampling=sampling, n=2))
    engine.finish()
    others = replace(SHORT, prompt=LONG[:30], sampling=Sampling(temperature=1.0), n=max(1, crowd))
    if crowd:
        engine.submit(others)
        engine.steps(2)
    again = engine.submit(replace(SHORT, sampling=sampling, n=2))
    engine.finish()
    assert [engine.tokens(again, index) for index in (0, 1)] == [engine.tokens(alone, index) for index in (0, 1)]


def test_labels_are_scored_between_the_steps_of_answers(engine: Driven):
    scoring = LabelScoring(adapter=None, prompt=SHORT.prompt, prefix_tokens=len(CONTEXT), labels=((5, 6), (7,)))
    alone = engine.scores(scoring)
    writing = engine.submit(replace(SHORT, max_tokens=100))
    engine.steps(3)
    ticket = engine.submit(scoring)
    engine.steps(2)
    [scores] = engine.told[ticket]
    assert isinstance(scores, LabelScores)
    assert scores.scores == pytest.approx(alone.scores, abs=1e-5)
    assert scores.cached_tokens == len(CONTEXT)
    assert len(engine.deltas(writing)) == 5


# Leaving


def in_every_place(engine: Driven, **changes: object) -> dict[str, Ticket]:
    """A ticket that waits, and tickets whose context is compiled, whose long query is, and that write."""
    places = {
        "writing": engine.submit(replace(SHORT, max_tokens=400, n=3, **changes)),  # type: ignore[arg-type]
        "compiling": engine.submit(replace(SHORT, prompt=LONG, prefix_tokens=1400, **changes)),  # type: ignore[arg-type]
        "reading": engine.submit(replace(SHORT, prompt=LONG, prefix_tokens=0, **changes)),  # type: ignore[arg-type]
        "waiting": engine.submit(replace(SHORT, prompt=LONG[1:], prefix_tokens=0, **changes)),  # type: ignore[arg-type]
    }
    engine.steps(4)
    assert engine.engine.waiting == 1
    assert [name for name, ticket in places.items() if engine.told[ticket]] == ["writing"]
    return places


def test_whoever_leaves_frees_all_at_the_next_step(engine: Driven):
    for ticket in in_every_place(engine).values():
        ticket.cancelled = True
    assert not engine.step()
    assert engine.engine.waiting == 0
    assert engine.prefixes.set_aside(engine.prefixes.budget_bytes), "nothing is held any more"


def test_whoever_stays_is_answered_when_others_leave(engine: Driven, plain: PreTrainedModel):
    places = in_every_place(engine)
    other = engine.submit(replace(SHORT, max_tokens=300))
    engine.steps(1)
    places["writing"].cancelled = True
    places["compiling"].cancelled = True
    engine.finish()
    for name in ("reading", "waiting"):
        assert engine.tokens(places[name]) == plain_greedy(plain, places[name].request.prompt, SHORT.max_tokens)
    assert is_greedy(plain, SHORT.prompt, engine.tokens(other), 300)


def test_what_is_late_is_refused_at_the_next_step_wherever_it_is(engine: Driven, monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr("manyicl_core.inference.tickets.time.monotonic", lambda: now)
    places = in_every_place(engine, deadline=200.0)
    now = 199.0
    engine.steps(1)
    now = 201.0
    assert not engine.step()
    for ticket in places.values():
        assert isinstance(engine.refusal(ticket), DeadlineExceeded)
    assert engine.engine.waiting == 0
    assert engine.prefixes.set_aside(engine.prefixes.budget_bytes), "nothing is held any more"


def test_an_adapter_stays_while_scores_with_it_are_worked_on(engine: Driven, make_adapter: MakeAdapter):
    """Also where nobody waits for those any more: others share their passes."""
    first, second, *others = [engine.stored(make_adapter(seed)) for seed in range(4)]
    for one in (first, second):
        engine.answer(replace(SHORT, adapter=one))
    labels = ((5, 6), (7,))
    leaves, stays = [engine.submit(LabelScoring(adapter=one, prompt=CONTEXT, labels=labels)) for one in (first, second)]
    engine.steps(1)
    assert engine.engine._scorings.batch == [leaves, stays]
    leaves.cancelled = True
    # One more than there are places for, and the first is the one that was not used for longest.
    waiting = [engine.submit(replace(SHORT, adapter=one)) for one in others]
    while not any(ticket.waits and engine.adapters.has_fetched(ticket.request.adapter) for ticket in waiting):
        engine.engine._sweep()
        engine.engine._waiting.offer(engine.engine._start)
    engine.finish()
    [scores] = engine.told[stays]
    assert isinstance(scores, LabelScores)
    assert all(engine.text(ticket) for ticket in waiting)


def test_a_late_scoring_is_not_scored(engine: Driven):
    ticket = engine.submit(LabelScoring(adapter=None, prompt=CONTEXT, labels=((5,),), deadline=0.0))
    engine.finish()
    assert isinstance(engine.refusal(ticket), DeadlineExceeded)


def test_a_context_that_was_being_compiled_for_one_who_left_is_compiled_for_the_next(
    engine: Driven, plain: PreTrainedModel
):
    request = replace(SHORT, prompt=LONG, prefix_tokens=1400)
    first = engine.submit(request)
    engine.steps(1)
    second = engine.submit(request)
    engine.steps(1)
    first.cancelled = True
    engine.finish()
    assert engine.tokens(second) == plain_greedy(plain, LONG, SHORT.max_tokens)


def test_two_who_need_the_same_context_have_it_compiled_once(engine: Driven):
    request = replace(SHORT, prompt=LONG, prefix_tokens=1400, max_tokens=1)
    tickets = [engine.submit(replace(request, prompt=(*LONG[:1400], number))) for number in (10, 20, 30)]
    engine.finish()
    assert [engine.deltas(ticket)[-1].cached_tokens for ticket in tickets] == [0, 1400, 1400]
