"""Files: uploads and results; the content lies in the artifact store."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, Bytes, CreatedAt


class File(Base):
    """One file of a project; one with ``expires_at`` is gone from then on."""

    __tablename__ = "files"
    __table_args__ = (
        Index(None, "project_id", "created_at"),
        Index(None, "project_id", "bytes"),
        Index(None, "expires_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[Bytes]
    sha256: Mapped[str]
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime | None]
