"""Add lines to the stories of jobs and evaluations."""

from typing import Any

from sqlalchemy.orm import Session

from manyicl_core.ids import new_id
from manyicl_core.store.tables import EvaluationEvent, JobEvent


def add_event(
    session: Session, job_id: str, level: str, message: str, type_: str = "message", data: dict[str, Any] | None = None
) -> None:
    """Add a line to a job's story."""
    session.add(JobEvent(id=new_id("ftevent-"), job_id=job_id, level=level, type=type_, message=message, data=data))
    session.flush()


def add_evaluation_event(
    session: Session, evaluation_id: str, level: str, message: str, data: dict[str, Any] | None = None
) -> None:
    """Add a line to an evaluation's story."""
    event = EvaluationEvent(
        id=new_id("evalevent-"), evaluation_id=evaluation_id, level=level, type="message", message=message, data=data
    )
    session.add(event)
    session.flush()
