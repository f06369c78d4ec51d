"""API keys: only a keyed hash of each is stored."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, CreatedAt


class ApiKey(Base):
    """A bearer key of a project."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    hash: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[CreatedAt]
    revoked_at: Mapped[datetime | None]
