"""Checkpoints that lie complete in the artifact store."""

from sqlalchemy import ForeignKey, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, CreatedAt


class Checkpoint(Base):
    """The weights after a step of a job, and where training can go on from.

    ``step`` counts over all tasks of a dedicated job; ``task`` is the one that was trained.
    ``files`` are the names under ``key``. Once the task (or the job) is trained, ``key`` is NULL:
    what is left, the last step (``final``) and the best one, is weights only, found by their hash.
    ``best``: no earlier step had a lower validation loss.
    """

    __tablename__ = "checkpoints"
    __table_args__ = (Index(None, "weights_sha256"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    task: Mapped[str | None]
    created_at: Mapped[CreatedAt]
    weights_sha256: Mapped[str]
    best: Mapped[bool]
    final: Mapped[bool]
    key: Mapped[str | None]
    files: Mapped[list[str]] = mapped_column(JSONB)
