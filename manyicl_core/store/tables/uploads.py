"""Uploads: files that arrive in parts."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, column_property, mapped_column

from manyicl_core.store.tables.base import Base, Bytes, CreatedAt

PENDING, COMPLETED, CANCELLED = "pending", "completed", "cancelled"


class Upload(Base):
    """A file to be, until it is completed or cancelled, or its time is over.

    Attributes:
        bytes: of the whole file, as the client announced it.
        file_seconds: how long the file is kept from its creation; None: until it is deleted.
        is_late: whether its time is over by the database's clock, as of loading the row.
        part_ids: the parts that became the file, in order.
        keeps_parts: whether parts may still lie in the artifact store.
    """

    __tablename__ = "uploads"
    __table_args__ = (
        CheckConstraint(f"state IN ('{PENDING}', '{COMPLETED}', '{CANCELLED}')", name="state"),
        Index(None, "project_id", "created_at"),
        Index(None, "expires_at", postgresql_where=text("keeps_parts")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    state: Mapped[str] = mapped_column(default=PENDING)
    bytes: Mapped[Bytes]
    filename: Mapped[str]
    mime_type: Mapped[str]
    purpose: Mapped[str]
    file_seconds: Mapped[int | None]
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime] = mapped_column()
    file: Mapped[str | None]
    part_ids: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))
    keeps_parts: Mapped[bool] = mapped_column(default=True)

    is_late: Mapped[bool] = column_property(expires_at <= func.now())


class UploadPart(Base):
    """One part; its content lies in the artifact store until the upload is over."""

    __tablename__ = "upload_parts"
    __table_args__ = (Index(None, "upload_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"))
    bytes: Mapped[Bytes]
    md5: Mapped[str]
    created_at: Mapped[CreatedAt]
