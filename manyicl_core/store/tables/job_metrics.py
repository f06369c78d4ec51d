"""Training metrics, a row an optimizer step."""

from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, CreatedAt


class JobMetrics(Base):
    """The metrics of one step; a step that a resumed run repeats keeps its first row."""

    __tablename__ = "job_metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[CreatedAt]
    values: Mapped[dict[str, Any]]
