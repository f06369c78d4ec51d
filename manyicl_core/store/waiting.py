"""What a waiting job or evaluation waits for, in a few queries for a whole page of them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel
from sqlalchemy import literal, select
from sqlalchemy.orm import Session

from manyicl_core.store.events import add_evaluation_event, add_event
from manyicl_core.store.fair_queue import waiting_work
from manyicl_core.store.hints import JOBS_QUEUE
from manyicl_core.store.job_states import QUEUED, RUNNING
from manyicl_core.store.quotas.service import project_quotas, spent_today
from manyicl_core.store.tables import Evaluation, Job, Leased
from manyicl_core.store.workers import Places, job_places

_LOOKED_AT = 1000


class WaitingFor(BaseModel):
    """Why waiting work does not run yet.

    Attributes:
        reason: ``worker``: nothing, a free one takes it within seconds.
        position: how many jobs and evaluations, of all projects, come before it; None where a quota
            holds it back, or more wait than are looked at.
        message: the same for a person.
    """

    reason: Literal["worker", "busy_workers", "no_worker", "running_jobs", "training_tokens_per_day"]
    position: int | None
    message: str


def waiting_for(session: Session, rows: Sequence[Leased]) -> dict[str, WaitingFor]:
    """What those of ``rows`` that wait are waiting for, by their ids."""
    waiting = [row for row in rows if row.state == QUEUED or _is_lost(row)]
    if not waiting:
        return {}
    order = {work.id: place for place, work in enumerate(waiting_work(session, [Job, Evaluation], _LOOKED_AT))}
    places = job_places(session, JOBS_QUEUE)
    found = {}
    for row in waiting:
        if row.id in order:
            found[row.id] = _in_line(order[row.id], places)
        elif row.state == QUEUED:
            found[row.id] = _held_back(session, row, places, len(order))
    return found


def tell_wait(session: Session, row: Job | Evaluation) -> None:
    """Say in the story of work that was just queued what it waits for, unless a free worker takes it at once."""
    waiting = waiting_for(session, [row]).get(row.id)
    if waiting is None or waiting.reason == "worker":
        return
    add = add_event if isinstance(row, Job) else add_evaluation_event
    add(session, row.id, "info", waiting.message, data=waiting.model_dump())


def _is_lost(row: Leased) -> bool:
    """Whether its worker has gone silent, by our clock; the database's decides, in the order."""
    return row.state == RUNNING and row.lease_expires_at is not None and row.lease_expires_at < datetime.now(UTC)


def _in_line(position: int, places: Places) -> WaitingFor:
    if places.total == 0:
        return _no_worker(position)
    if position < places.free:
        return WaitingFor(reason="worker", position=position, message="A free worker takes it within seconds")
    return WaitingFor(
        reason="busy_workers",
        position=position,
        message=f"Waits for a worker: {_works(position)} before it, {places.taken} running",
    )


def _held_back(session: Session, row: Leased, places: Places, looked_at: int) -> WaitingFor:
    """Why it has no place in the order of what may run."""
    if isinstance(row, Job) and session.execute(select(spent_today(literal(row.project_id)))).scalar_one():
        limit = project_quotas(session, row.project_id)["training_tokens_per_day"]
        message = f"Waits for 00:00 UTC: the project's {limit} tokens of the day (training_tokens_per_day) are trained"
        return WaitingFor(reason="training_tokens_per_day", position=None, message=message)
    if places.total == 0:
        return _no_worker(None)
    if looked_at >= _LOOKED_AT:
        message = f"Waits for a worker: more than {_works(looked_at)} before it, {places.taken} running"
        return WaitingFor(reason="busy_workers", position=None, message=message)
    limit = project_quotas(session, row.project_id)["running_jobs"]
    message = f"Waits for the project's other work: at most {_works(limit)} of it run at a time (running_jobs)"
    return WaitingFor(reason="running_jobs", position=None, message=message)


def _no_worker(position: int | None) -> WaitingFor:
    message = "No worker answers; start one with `manyicl worker`"
    return WaitingFor(reason="no_worker", position=position, message=message)


def _works(number: int) -> str:
    return "1 job or evaluation" if number == 1 else f"{number} jobs and evaluations"
