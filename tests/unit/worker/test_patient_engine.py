"""An engine that is full or away is asked again; one that refuses is not."""

import asyncio
import threading
from typing import Any, cast

import pytest

from manyicl_core.engines.client import EngineClient
from manyicl_core.errors import InvalidRequest, Overloaded, Unavailable, UserError
from worker import patient_engine
from worker.attempt import WorkFailed
from worker.patient_engine import PatientEngine
from worker.process import ProcessDied


class Engine:
    """Says what it is told to, one after the other."""

    def __init__(self, *says: UserError | dict[str, Any]) -> None:
        self.left = list(says)

    async def complete(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        said = self.left.pop(0)
        if isinstance(said, UserError):
            raise said
        return said


def ask(engine: Engine, stop: threading.Event | None = None) -> dict[str, Any]:
    return asyncio.run(PatientEngine(cast(EngineClient, engine), stop or threading.Event()).complete({}))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_engine, "_PAUSE_MS", 0)


def test_an_engine_that_is_full_or_away_is_asked_until_it_answers() -> None:
    engine = Engine(Unavailable("away"), Overloaded("full", 1), Unavailable("away"), {"id": "a"})
    assert ask(engine) == {"id": "a"}
    assert engine.left == []


def test_a_refusal_is_final_and_says_why() -> None:
    with pytest.raises(WorkFailed, match="too long") as failed:
        ask(Engine(InvalidRequest("the prompt is too long"), {"id": "a"}))
    assert failed.value.code == "engine_error"


def test_lost_work_is_asked_for_no_more() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(ProcessDied):
        ask(Engine(), stop)
