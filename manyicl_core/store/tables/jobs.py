"""Fine-tuning jobs: what was asked, where it stands, and who holds it."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Bytes
from manyicl_core.store.tables.leased import Leased, state_checks


class Job(Leased):
    """One fine-tuning run.

    ``start_model`` is the fine-tuned model that training goes on from, as the client named it.
    ``models`` maps each task of a dedicated job to its model; ``fine_tuned_model`` and
    ``weights_sha256`` are then the first task's. ``task_models`` maps each task to the id under which
    the job's model answers it.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        *state_checks(),
        # In the order of list pages, so that a page costs the same however many jobs there are.
        Index(None, "project_id", "created_at", "id"),
        Index(None, "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
        Index(None, "state", "lease_expires_at"),
    )

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

    estimated_finish: Mapped[datetime | None]
    plan: Mapped[dict[str, Any] | None]
    peak_memory_bytes: Mapped[Bytes | None]
    trained_tokens: Mapped[Bytes | None]
    weights_sha256: Mapped[str | None]
    fine_tuned_model: Mapped[str | None]
    models: Mapped[dict[str, Any]] = mapped_column(default=dict)
    task_models: Mapped[dict[str, Any]] = mapped_column(default=dict)
    result_files: Mapped[list[str]] = mapped_column(JSONB, default=list)
