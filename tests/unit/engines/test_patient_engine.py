"""An engine that is full or away is asked again; one that refuses is not, nor one that fails again and again."""

import asyncio
from typing import Any

import pytest

from manyicl_core.engines import patient_engine
from manyicl_core.engines.patient_engine import PatientEngine
from manyicl_core.errors import ENGINE_ERROR, OUT_OF_MEMORY, InvalidRequest, Overloaded, Unavailable, UserError


class Engine:
    """Says what it is told to, one after the other."""

    def __init__(self, *says: UserError | dict[str, Any]) -> None:
        self.left = list(says)

    async def complete(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        said = self.left.pop(0)
        if isinstance(said, UserError):
            raise said
        return said


def ask(engine: Engine, most_seconds: float | None = None) -> dict[str, Any]:
    return asyncio.run(PatientEngine(engine, most_seconds).complete("/v1/completions", {}))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Unavailable, "retry_after_ms", 0)
    monkeypatch.setattr(patient_engine, "_MEMORY_PAUSE_SECONDS", 0)


def test_an_engine_that_is_full_or_away_is_asked_until_it_answers() -> None:
    away = [Unavailable("away") for _ in range(9)]
    engine = Engine(*away, Overloaded("full", 1), {"id": "a"})
    assert ask(engine) == {"id": "a"}
    assert engine.left == []


def test_a_refusal_is_final_and_says_why() -> None:
    with pytest.raises(InvalidRequest, match="too long"):
        ask(Engine(InvalidRequest("the prompt is too long"), {"id": "a"}))


@pytest.mark.parametrize("code", [ENGINE_ERROR, OUT_OF_MEMORY])
def test_an_engine_that_fails_at_a_request_again_and_again_is_asked_no_more(code: str) -> None:
    says = [Unavailable("it failed", code=code) for _ in range(6)]
    engine = Engine(*says, {"id": "a"})
    with pytest.raises(Unavailable, match="it failed") as failed:
        ask(engine)
    assert len(engine.left) == 2
    assert failed.value.retry_after_ms is None, "the last word"


def test_memory_is_waited_for_longer_than_a_place_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_engine, "_MEMORY_PAUSE_SECONDS", 15.0)
    with pytest.raises(Unavailable):
        ask(Engine(Unavailable("no memory", code=OUT_OF_MEMORY), {"id": "a"}), most_seconds=10)
    assert ask(Engine(Overloaded("full", 1), {"id": "a"}), most_seconds=10) == {"id": "a"}


def test_a_wait_that_would_take_too_long_is_not_begun() -> None:
    with pytest.raises(Overloaded) as refused:
        ask(Engine(Overloaded("full", 60_000), {"id": "a"}), most_seconds=30)
    assert refused.value.retry_after_ms == 60_000, "whoever asks may wait"
