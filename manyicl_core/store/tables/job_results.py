"""Evaluation results: base beside tuned, a row a task and number of shots."""

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, CreatedAt


class JobResult(Base):
    """One metric of one task at one k, from 0 to 1."""

    __tablename__ = "job_results"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    task: Mapped[str] = mapped_column(primary_key=True)
    k: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[CreatedAt]
    family: Mapped[str]
    role: Mapped[str]
    metric: Mapped[str]
    base: Mapped[float]
    tuned: Mapped[float]
    queries: Mapped[int]
    seconds: Mapped[float]
