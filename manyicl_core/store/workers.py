"""Which workers live: each says so every few seconds, and one that is silent for too long is gone."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from manyicl_core.store.leases import is_held
from manyicl_core.store.tables import Evaluation, Job, Worker

_FORGOTTEN_AFTER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Places:
    """How many jobs and evaluations the living workers do at a time, and how many they are doing."""

    total: int
    taken: int

    @property
    def free(self) -> int:
        """How many more they would take at once."""
        return max(0, self.total - self.taken)


def record_alive(session: Session, worker_id: str, queue: str, places: int, seconds: float) -> None:
    """The worker lives, and will say so again within so many seconds; what is long gone is forgotten."""
    values = {"queue": queue, "places": places, "silent_at": func.now() + timedelta(seconds=seconds)}
    row = insert(Worker).values(id=worker_id, **values)
    session.execute(row.on_conflict_do_update(index_elements=("id",), set_=values))
    session.execute(delete(Worker).where(Worker.silent_at < func.now() - _FORGOTTEN_AFTER))


def record_gone(session: Session, worker_id: str) -> None:
    """The worker ends."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


def forget_workers(session: Session) -> None:
    """None lives: they were killed together with the service that is about to start them again."""
    session.execute(delete(Worker))


def living_places(session: Session, queue: str) -> int:
    """What all living workers of a queue do at a time; 0: none lives."""
    total = select(func.coalesce(func.sum(Worker.places), 0))
    return session.execute(total.where(Worker.queue == queue, Worker.silent_at > func.now())).scalar_one()


def job_places(session: Session, queue: str) -> Places:
    """The places of the workers of jobs and evaluations."""
    held = [select(func.count()).select_from(table).where(is_held(table)) for table in (Job, Evaluation)]
    return Places(living_places(session, queue), sum(session.execute(query).scalar_one() for query in held))
