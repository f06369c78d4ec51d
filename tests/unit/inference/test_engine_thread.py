"""The engine's thread, seen from the event loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from manyicl_core.inference.engine_thread import EngineThread
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.requests import (
    DeadlineExceeded,
    Delta,
    Generation,
    LabelScores,
    LabelScoring,
    Overloaded,
    Refusal,
)
from manyicl_core.inference.vocabulary import Vocabulary
from tests.unit.inference.conftest import MakeAdapter
from tests.unit.inference.driving import CONTEXT, SHOWN, Driven, counted
from tests.unit.inference.greedy import plain_greedy

SHORT = Generation(adapter=None, prompt=(*CONTEXT, 10, 11), prefix_tokens=len(CONTEXT), max_tokens=6, sampling=SHOWN)
ENDLESS = replace(SHORT, max_tokens=1900)


@pytest.fixture
def engine(model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path) -> Driven:
    return Driven(model, vocabulary, tmp_path, rows=2)


@asynccontextmanager
async def running(engine: Driven, max_waiting: int = 3) -> AsyncGenerator[EngineThread, None]:
    thread = EngineThread(engine.engine, max_waiting)
    thread.start()
    try:
        yield thread
    finally:
        await asyncio.to_thread(thread.close)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


async def tokens(thread: EngineThread, request: Generation) -> list[int]:
    found = []
    async with aclosing(thread.events(request)) as events:
        async for event in events:
            assert isinstance(event, Delta)
            found += [entry.token for entry in event.logprobs]
    return found


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_many_at_once_are_answered_each_with_its_own(engine: Driven, plain: PreTrainedModel):
    async def ask() -> None:
        async with running(engine, max_waiting=100) as thread:
            requests = [replace(SHORT, prompt=(*CONTEXT, 10 + number), max_tokens=1 + number) for number in range(12)]
            found = await asyncio.gather(*(tokens(thread, request) for request in requests))
            for request, written in zip(requests, found, strict=True):
                assert written == plain_greedy(plain, request.prompt, request.max_tokens)

    run(ask())


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(engine: Driven):
    async def ask() -> None:
        async with running(engine) as thread:
            writing = [asyncio.create_task(tokens(thread, ENDLESS)) for _ in range(2)]
            waiting = [asyncio.create_task(tokens(thread, SHORT)) for _ in range(3)]
            await until(lambda: engine.engine.waiting == 3)
            with pytest.raises(Overloaded) as refused:
                thread.admit("", 0)
            assert refused.value.status == 429
            assert 0.1 <= refused.value.retry_after_seconds <= 30
            for task in writing:
                task.cancel()
            assert all([await task for task in waiting])
            thread.admit("", 0)

    run(ask())


def test_neither_bulk_nor_another_tenants_flood_takes_ones_place_in_the_queue(engine: Driven):
    async def ask() -> None:
        async with running(engine) as thread:
            flood = [*[replace(ENDLESS, tenant="busy")] * 2, *[replace(SHORT, tenant="bulk", priority=1)] * 50]
            tasks = [asyncio.create_task(tokens(thread, request)) for request in flood]
            await until(lambda: engine.engine.waiting == 50)
            for _ in range(3):
                thread.admit("busy", 0)
                tasks.append(asyncio.create_task(tokens(thread, replace(SHORT, tenant="busy"))))
                await asyncio.sleep(0)
            for refused in (("busy", 0), ("bulk", 1)):
                with pytest.raises(Overloaded):
                    thread.admit(*refused)
            thread.admit("somebody else", 0)
            for task in tasks:
                task.cancel()

    run(ask())


def test_how_long_to_wait_is_told_by_how_fast_answers_came_not_by_how_rarely_they_were_asked_for(engine: Driven):
    async def ask() -> None:
        async with running(engine, max_waiting=0) as thread:
            for _ in range(3):
                await tokens(thread, SHORT)
            thread._finished_at -= 3600  # long ago
            await tokens(thread, SHORT)
            with pytest.raises(Overloaded) as refused:
                thread.admit("", 0)
            assert refused.value.retry_after_seconds < 10

    run(ask())


def test_a_thread_that_died_is_told_of_and_takes_nothing_more(engine: Driven, monkeypatch: pytest.MonkeyPatch):
    signals: list[int] = []
    monkeypatch.setattr("signal.raise_signal", signals.append)

    async def ask() -> None:
        async with running(engine) as thread:
            assert thread.is_alive
            monkeypatch.setattr(engine.engine, "step", lambda: 1 / 0)
            for _ in range(2):
                with pytest.raises(Refusal, match="stopped"):
                    await tokens(thread, SHORT)
                assert not thread.is_alive

    run(ask())
    assert len(signals) == 1


def test_whoever_leaves_makes_room_for_the_next(engine: Driven):
    async def ask() -> None:
        async with running(engine) as thread:
            endless = [thread.events(ENDLESS) for _ in range(2)]
            for events in endless:
                await anext(events)
            before = counted("decoded")
            next_one = asyncio.create_task(tokens(thread, SHORT))
            await until(lambda: engine.engine.waiting == 1)
            await endless[0].aclose()
            assert len(await next_one) == SHORT.max_tokens
            assert counted("decoded") < before + ENDLESS.max_tokens, "not because the others were done"
            await endless[1].aclose()

    run(ask())


def test_whoever_leaves_while_waiting_waits_no_more(engine: Driven):
    async def ask() -> None:
        async with running(engine) as thread:
            endless = [thread.events(ENDLESS) for _ in range(2)]
            for events in endless:
                await anext(events)
            waits = asyncio.create_task(tokens(thread, SHORT))
            await until(lambda: engine.engine.waiting == 1)
            waits.cancel()
            before = counted("decoded")
            await until(lambda: engine.engine.waiting == 0)
            assert counted("decoded") < before + ENDLESS.max_tokens, "not because the others were done"
            for events in endless:
                await events.aclose()

    run(ask())


def test_what_waits_too_long_is_refused_although_nothing_else_happens(
    engine: Driven, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
):
    """Weights that never come are what it waits for."""
    import time  # noqa: PLC0415

    monkeypatch.setattr(engine.adapters, "get", lambda *_: None)

    async def ask() -> None:
        async with running(engine) as thread:
            with pytest.raises(DeadlineExceeded):
                await tokens(thread, replace(SHORT, adapter="0" * 64, deadline=time.monotonic() + 0.05))

    run(ask())


def test_an_adapter_on_its_way_wakes_the_engine(engine: Driven, make_adapter: MakeAdapter):
    adapter = engine.stored(make_adapter(1))

    async def ask() -> None:
        async with running(engine) as thread:
            assert await tokens(thread, replace(SHORT, adapter=adapter)) != await tokens(thread, SHORT)

    run(ask())


def test_labels_are_scored(engine: Driven):
    async def ask() -> None:
        async with running(engine) as thread:
            scoring = LabelScoring(adapter=None, prompt=CONTEXT, labels=((5, 6), (7,)))
            found = [event async for event in thread.events(scoring)]
            [scores] = found
            assert isinstance(scores, LabelScores) and len(scores.scores) == 2

    run(ask())
