"""Contexts: what is to be shown before every query, where it stands, and what came out."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Bytes
from manyicl_core.store.tables.leased import Leased, state_checks


class Context(Leased):
    """Demonstrations of one task for one model, hosted under an id of their own.

    Attributes:
        model: as the client named it.
        task: the task's name, in the model's job or in the file; None for pasted examples.
        file: the id of the file that the examples came from.
        examples: how many there are to choose from.
        selection: how they are chosen: ``balanced``, ``random``, ``diverse`` or ``auto``.
        artifact: where the token ids lie, once the demonstrations are chosen: from then on it answers.
        demonstrations: line numbers in the file, or positions in the pasted list.
        selected: how they were chosen in the end (``SelectedObject``).
    """

    __tablename__ = "contexts"
    __table_args__ = (
        *state_checks(),
        Index(None, "project_id", "created_at"),
        Index(None, "state", "lease_expires_at"),
        Index(None, "expires_at"),
    )

    expires_at: Mapped[datetime | None]
    name: Mapped[str | None]
    model: Mapped[str]
    base_model: Mapped[str]
    weights_sha256: Mapped[str | None]
    task: Mapped[str | None]
    file: Mapped[str | None]
    examples: Mapped[int]
    instruction: Mapped[str]
    labels: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))
    max_shots: Mapped[int | None]
    max_tokens: Mapped[int]
    selection: Mapped[str]
    seed: Mapped[int]
    annotations: Mapped[dict[str, Any]] = mapped_column("metadata")

    artifact: Mapped[str | None]
    tokens: Mapped[int | None]
    bytes: Mapped[Bytes | None]
    demonstrations: Mapped[list[int]] = mapped_column(JSONB, default=list)
    selected: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
