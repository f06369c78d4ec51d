"""Projects: the tenants."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, CreatedAt


class Project(Base):
    """A tenant; it owns keys, files, jobs and models. The keys of an archived one open nothing."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[CreatedAt]
    archived_at: Mapped[datetime | None]
