"""What happened to a job, in order."""

from typing import Any

from sqlalchemy import ForeignKey, Identity, Index
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, Bytes, CreatedAt


class JobEvent(Base):
    """One line of a job's story; ``number`` orders them."""

    __tablename__ = "job_events"
    __table_args__ = (Index(None, "job_id", "number"),)

    number: Mapped[Bytes] = mapped_column(Identity(always=True), primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    created_at: Mapped[CreatedAt]
    level: Mapped[str]
    type: Mapped[str]
    message: Mapped[str]
    data: Mapped[dict[str, Any] | None]
