"""Creations: what a request made, so that the same request again gets the same answer."""

from sqlalchemy import ForeignKey, Identity, Index
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, Bytes, CreatedAt


class Creation(Base):
    """One creation, committed with what it made.

    Attributes:
        key: the request's ``Idempotency-Key``, unique in the project, or None.
        fingerprint: SHA-256 over route and content.
        answer: the response's body, a JSON text.
        made: the id of what was made.
    """

    __tablename__ = "creations"
    __table_args__ = (
        Index("uq_creations_project_id_key", "project_id", "key", unique=True),
        Index(None, "project_id", "fingerprint", "number"),
        Index(None, "made"),
        Index(None, "created_at"),
    )

    number: Mapped[Bytes] = mapped_column(Identity(always=True), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    key: Mapped[str | None]
    fingerprint: Mapped[str]
    answer: Mapped[str]
    made: Mapped[str | None]
    created_at: Mapped[CreatedAt]
