"""Batches: files of requests that are answered in the background, and how far each has come."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, Bytes, CreatedAt
from manyicl_core.store.tables.leased import Leased, state_checks


class Batch(Leased):
    """One file of requests to one endpoint.

    Attributes:
        model: the one that every request names, or None while unknown or when they name several.
        total: how many requests the file holds, once its lines are checked.
        completed, failed: requests with an answer, and with an error in its place; always the sums
            over the recorded chunks, as the tokens are.
        errors: what is wrong with lines of the file (``LineProblem`` objects).
        expires_at: when the completion window ends.
        output_seconds: how long its result files are kept; None: until they are deleted.
    """

    __tablename__ = "batches"
    __table_args__ = (
        *state_checks(),
        Index(None, "project_id", "created_at"),
        Index(None, "state", "lease_expires_at"),
    )

    endpoint: Mapped[str]
    completion_window: Mapped[str]
    input_file: Mapped[str]
    labels: Mapped[dict[str, Any]] = mapped_column("metadata")
    model: Mapped[str | None]
    total: Mapped[int | None]
    completed: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    input_tokens: Mapped[Bytes] = mapped_column(default=0)
    cached_tokens: Mapped[Bytes] = mapped_column(default=0)
    output_tokens: Mapped[Bytes] = mapped_column(default=0)
    errors: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, default=list)
    expires_at: Mapped[datetime]
    output_seconds: Mapped[int | None]
    in_progress_at: Mapped[datetime | None]
    finalizing_at: Mapped[datetime | None]
    output_file: Mapped[str | None]
    error_file: Mapped[str | None]


class BatchChunk(Base):
    """Requests that are done for good: their result lines lie under ``key`` in the artifact store."""

    __tablename__ = "batch_chunks"

    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[CreatedAt]
    key: Mapped[str]
