"""What happened to jobs and evaluations, in order."""

from typing import Any, Literal

from sqlalchemy import ForeignKey, Identity, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, Bytes, CreatedAt

Level = Literal["info", "warn", "error"]
EventType = Literal["message", "metrics"]


class Event(Base):
    """One line of a story; ``number`` orders them."""

    __abstract__ = True

    number: Mapped[Bytes] = mapped_column(Identity(always=True), primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[CreatedAt]
    level: Mapped[Level] = mapped_column(String)
    type: Mapped[EventType] = mapped_column(String)
    message: Mapped[str]
    data: Mapped[dict[str, Any] | None]


class JobEvent(Event):
    """One line of a job's story."""

    __tablename__ = "job_events"
    __table_args__ = (Index(None, "job_id", "number"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))


class EvaluationEvent(Event):
    """One line of an evaluation's story."""

    __tablename__ = "evaluation_events"
    __table_args__ = (Index(None, "evaluation_id", "number"),)

    evaluation_id: Mapped[str] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"))
