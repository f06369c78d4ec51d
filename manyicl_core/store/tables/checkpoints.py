"""Checkpoints that lie complete in the artifact store."""

from sqlalchemy import ForeignKey
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, CreatedAt


class Checkpoint(Base):
    """Where a job can go on from; ``files`` are the names under ``key``."""

    __tablename__ = "checkpoints"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[CreatedAt]
    key: Mapped[str]
    files: Mapped[list[str]] = mapped_column(JSONB)
