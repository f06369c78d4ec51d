"""Fine-tuning jobs: what was asked, where it stands, and who holds it."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.job_states import STATES
from manyicl_core.store.tables.base import Base, Bytes, CreatedAt


class Job(Base):
    """One fine-tuning run.

    ``fence`` rises with every claim; whoever writes on behalf of a running job names the fence
    it claimed, so a worker that lost the job can write nothing.

    ``start_model`` is the fine-tuned model that training goes on from, as the client named it.
    ``models`` maps each task of a dedicated job to its model; ``fine_tuned_model`` and
    ``weights_sha256`` are then the first task's.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"state IN ({', '.join(repr(state) for state in STATES)})", name="state"),
        CheckConstraint("(state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)", name="finished"),
        Index(None, "project_id", "created_at"),
        Index(None, "state", "lease_expires_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    created_at: Mapped[CreatedAt]
    state: Mapped[str]

    base_model: Mapped[str]
    start_model: Mapped[str | None]
    start_sha256: Mapped[str | None]
    suffix: Mapped[str | None]
    seed: Mapped[int]
    training_file: Mapped[str]
    validation_file: Mapped[str | None]
    hyperparameters: Mapped[dict[str, Any]]
    options: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]] = mapped_column("metadata")
    dataset: Mapped[str]

    fence: Mapped[int] = mapped_column(default=0)
    lease_expires_at: Mapped[datetime | None]
    infrastructure_failures: Mapped[int] = mapped_column(default=0)
    cancel_requested_at: Mapped[datetime | None]

    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    estimated_finish: Mapped[datetime | None]
    plan: Mapped[dict[str, Any] | None]
    peak_memory_bytes: Mapped[Bytes | None]
    trained_tokens: Mapped[Bytes | None]
    weights_sha256: Mapped[str | None]
    fine_tuned_model: Mapped[str | None]
    models: Mapped[dict[str, Any]] = mapped_column(default=dict)
    result_files: Mapped[list[str]] = mapped_column(JSONB, default=list)
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
