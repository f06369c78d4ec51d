"""Who is answered first when more is asked than there are rows."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from manyicl_core.inference import places as places_module
from manyicl_core.inference.fair_queue import FairQueue
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.places import Places
from manyicl_core.inference.requests import Generation, LabelScoring
from manyicl_core.inference.tickets import Ticket
from manyicl_core.inference.vocabulary import Vocabulary
from tests.unit.inference.conftest import MakeAdapter
from tests.unit.inference.driving import CONTEXT, Driven

REQUEST = Generation(adapter=None, prompt=(*CONTEXT, 10, 11), max_tokens=4)


@pytest.fixture
def engine(model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path) -> Driven:
    return Driven(model, vocabulary, tmp_path, rows=2)


def finished(engine: Driven, tickets: list[Ticket]) -> list[int]:
    """Numbers of the tickets that are answered, in their order."""
    order: list[int] = []
    while engine.step():
        order += [
            number
            for number, ticket in enumerate(tickets)
            if number not in order and engine.told[ticket] and engine.deltas(ticket)[-1].finish_reason
        ]
    return order


def test_a_hundred_requests_of_one_tenant_do_not_starve_another_ones(engine: Driven):
    crowd = [engine.submit(replace(REQUEST, tenant="crowd")) for _ in range(100)]
    engine.steps(10)
    answered = sum(bool(engine.told[ticket]) for ticket in crowd)
    one = engine.submit(replace(REQUEST, tenant="one"))
    while not engine.told[one]:
        engine.steps(1)
    assert sum(bool(engine.told[ticket]) for ticket in crowd) <= answered + 2


def test_two_tenants_get_the_same_however_long_their_requests_are(engine: Driven):
    short = [engine.submit(replace(REQUEST, tenant="short")) for _ in range(40)]
    long = [engine.submit(replace(REQUEST, tenant="long", max_tokens=20)) for _ in range(40)]
    engine.steps(150)
    work = [sum(38 + len(engine.deltas(ticket)) for ticket in own if engine.told[ticket]) for own in (short, long)]
    assert work[0] == pytest.approx(work[1], rel=0.3)


def test_bulk_takes_what_the_others_leave(engine: Driven):
    bulk = [engine.submit(replace(REQUEST, tenant="bulk", priority=1)) for _ in range(4)]
    interactive = [engine.submit(replace(REQUEST, tenant="busy")) for _ in range(8)]
    order = finished(engine, [*bulk, *interactive])
    assert sorted(order) == list(range(12))
    assert set(order[:8]) == set(range(4, 12))


def test_many_answers_at_once_are_not_passed_by_for_ever(engine: Driven):
    many = replace(REQUEST, n=5, tenant="many")
    engine.submit(replace(REQUEST, tenant="others"))
    engine.steps(1)
    waits = engine.submit(many)
    for _ in range(20):
        engine.submit(replace(REQUEST, tenant="others"))
        engine.steps(1)
    assert engine.told[waits]
    engine.finish()
    assert {delta.index for delta in engine.deltas(waits)} == set(range(5))


def test_a_tenants_new_contexts_do_not_go_before_another_ones_answers(engine: Driven):
    """Contexts are work too: whoever compiles many has used more."""
    tokens = tuple(3 + (5 * number * number) % 380 for number in range(1200))
    contexts = [
        engine.submit(replace(REQUEST, prompt=(*tokens[number:], 5), prefix_tokens=1000, tenant="compiles"))
        for number in range(6)
    ]
    engine.steps(4)
    answered = engine.submit(replace(REQUEST, tenant="asks"))
    engine.steps(1 + REQUEST.max_tokens)
    assert engine.deltas(answered)[-1].finish_reason == "length"
    assert not all(engine.told[ticket] for ticket in contexts)


def test_long_answers_of_one_tenant_do_not_keep_another_one_waiting(engine: Driven):
    long = [engine.submit(replace(REQUEST, tenant="long", max_tokens=1000, n=5)) for _ in range(4)]
    engine.steps(10)
    one = engine.submit(replace(REQUEST, tenant="one"))
    engine.steps(10)
    assert engine.deltas(one)[-1].finish_reason
    assert not any(delta.finish_reason for ticket in long for delta in engine.deltas(ticket))


def test_bulk_leaves_rows_free_however_much_of_it_there_is(
    model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path
):
    engine = Driven(model, vocabulary, tmp_path, rows=4)
    bulk = [engine.submit(replace(REQUEST, priority=1, max_tokens=1000, n=n)) for n in (1, 9, 1, 1)]
    engine.steps(10)
    # Also for the same tenant's own.
    interactive = engine.submit(REQUEST)
    engine.steps(10)
    assert engine.deltas(interactive)[-1].finish_reason
    assert not any(delta.finish_reason for ticket in bulk for delta in engine.deltas(ticket))
    assert len({(ticket, delta.index) for ticket in bulk for delta in engine.deltas(ticket)}) == 3


@pytest.mark.parametrize("lacks", ["a place for its adapter", "memory for its context"])
def test_what_needs_more_memory_is_not_passed_by_for_ever(
    model: LanguageModel,
    vocabulary: Vocabulary,
    make_adapter: MakeAdapter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lacks: str,
):
    monkeypatch.setattr(places_module, "PATIENCE_SECONDS", 0.0)
    engine = Driven(model, vocabulary, tmp_path, budget_bytes=100 * model.bytes_a_token, rows=8)
    if lacks == "memory for its context":
        crowd = [replace(REQUEST, tenant=f"crowd {n}", prompt=(n + 5, *CONTEXT), prefix_tokens=33) for n in range(3)]
        starved = replace(REQUEST, tenant="starved", prompt=(*CONTEXT, *CONTEXT, 9), prefix_tokens=70)
    else:
        adapters = [engine.stored(make_adapter(seed)) for seed in range(4)]
        crowd = [replace(REQUEST, tenant=f"crowd {n}", adapter=adapter) for n, adapter in enumerate(adapters[1:])]
        starved = replace(REQUEST, tenant="starved", adapter=adapters[0])

    for request in crowd:
        engine.answer(request)
    # Two of each overlap, so that none is ever idle.
    crowd = [replace(request, max_tokens=10 + 3 * number) for number, request in enumerate([*crowd, *crowd])]
    tickets = [engine.submit(request) for request in crowd]
    engine.steps(4)
    waits = engine.submit(starved)
    steps_left = 150  # soon after, two of one adapter end at the same time
    while steps_left and not engine.told[waits]:
        steps_left -= starved.adapter is None or engine.adapters.has_fetched(starved.adapter)
        for number, ticket in enumerate(tickets):
            if engine.told[ticket] and engine.deltas(ticket)[-1].finish_reason:
                tickets[number] = engine.submit(crowd[number])
        engine.step()
    assert engine.told[waits]


def test_what_starves_is_reached_behind_another_one_of_its_tenant(
    model: LanguageModel,
    vocabulary: Vocabulary,
    make_adapter: MakeAdapter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(places_module, "PATIENCE_SECONDS", 0.0)
    engine = Driven(model, vocabulary, tmp_path, budget_bytes=100 * model.bytes_a_token)
    may_be_fetched = threading.Event()
    fetch = engine.adapters._fetch

    def fetch_late(sha256: str) -> Path:
        assert may_be_fetched.wait(30)
        return fetch(sha256)

    monkeypatch.setattr(engine.adapters, "_fetch", fetch_late)
    using = engine.submit(replace(REQUEST, prefix_tokens=35, max_tokens=20, tenant="other"))
    engine.steps(3)
    fetches = engine.submit(replace(REQUEST, adapter=engine.stored(make_adapter(1)), tenant="one"))
    starved = engine.submit(replace(REQUEST, prompt=(*CONTEXT, *CONTEXT, 9), prefix_tokens=70, tenant="one"))
    while engine.step():
        pass
    assert engine.text(using) and engine.text(starved)
    assert not engine.told[fetches]
    may_be_fetched.set()
    engine.finish()
    assert engine.text(fetches)


def test_who_is_more_urgent_starves_before_bulk(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(places_module, "PATIENCE_SECONDS", 0.0)
    places = Places(4, FairQueue())
    bulk, urgent, other = (Ticket(replace(REQUEST, priority=priority)) for priority in (1, 0, 0))
    places.lacks_memory(bulk)
    assert not places.are_kept_from(other)
    places.lacks_memory(urgent)
    assert places.are_kept_from(other) and places.are_kept_from(bulk)
    places.lacks_memory(bulk)
    assert not places.are_kept_from(urgent)


def test_no_weights_are_loaded_for_what_cannot_begin(engine: Driven, make_adapter: MakeAdapter):
    sha256 = engine.stored(make_adapter(1))
    makes = [engine.submit(request) for request in contexts("crowd", 2)]
    engine.steps(1)
    waits = engine.submit(replace(contexts("one", 1)[0], adapter=sha256))
    engine.steps(1)
    assert waits.waits
    assert not engine.adapters.has_fetched(sha256) and sha256 not in engine.adapters._fetching
    engine.finish()
    assert all(engine.text(ticket) for ticket in [*makes, waits])


def contexts(tenant: str, count: int) -> list[Generation]:
    """Of different contexts that take several steps each."""
    return [
        replace(REQUEST, tenant=tenant, prompt=(number + 5, *(CONTEXT * 20), 9), prefix_tokens=700)
        for number in range(count)
    ]


@pytest.mark.parametrize("patience", [60.0, 0.0])
def test_what_waits_to_be_compiled_is_passed_by_for_a_while(
    engine: Driven, monkeypatch: pytest.MonkeyPatch, patience: float
):
    monkeypatch.setattr(places_module, "PATIENCE_SECONDS", patience)
    known = replace(REQUEST, tenant="one", prefix_tokens=len(CONTEXT))
    engine.answer(known)
    first, second, third = contexts("crowd", 3)
    engine.submit(first)
    engine.submit(second)
    engine.steps(1)
    new, later = engine.submit(replace(third, tenant="one")), engine.submit(known)
    engine.steps(1)
    assert new.waits
    assert later.waits == (patience == 0)
    engine.finish()
    assert engine.deltas(new) and engine.deltas(later)


SCORING = LabelScoring(
    adapter=None, prompt=(*CONTEXT, 10, 11), labels=tuple((5, number, 2) for number in range(6, 106)), tenant="crowd"
)


@pytest.mark.parametrize("priority", [0, 1])
def test_many_label_scores_of_one_do_not_keep_another_one_waiting(engine: Driven, priority: int):
    crowd = [engine.submit(replace(SCORING, priority=priority)) for _ in range(60)]
    engine.steps(3)
    one = engine.submit(replace(SCORING, tenant="one"))
    while not engine.told[one]:
        engine.steps(1)
    assert sum(bool(engine.told[ticket]) for ticket in crowd) < 20


def test_bulk_leaves_a_place_to_those_that_need_a_new_context(engine: Driven):
    bulk = [engine.submit(replace(request, priority=1)) for request in contexts("bulk", 2)]
    engine.steps(1)
    one = engine.submit(replace(contexts("one", 3)[2], tenant="one"))
    assert finished(engine, [*bulk, one])[-1] == 1
