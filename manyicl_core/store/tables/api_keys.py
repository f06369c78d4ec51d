"""API keys: only a keyed hash of each is stored."""

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, CreatedAt


class ApiKey(Base):
    """A bearer key of a project.

    Attributes:
        redacted: a form that its owner recognises, such as ``sk-manyicl-…abcd``.
        scopes: exactly what it may do (``manyicl_core/store/projects/schemas.py``).
        revoked_at: from then on it opens nothing; a rotation may set it ahead.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    redacted: Mapped[str]
    scopes: Mapped[list[str]] = mapped_column(ARRAY(String))
    created_at: Mapped[CreatedAt]
    revoked_at: Mapped[datetime | None]
