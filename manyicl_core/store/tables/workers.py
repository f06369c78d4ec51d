"""The workers that live, each by its own word."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base


class Worker(Base):
    """A worker of one queue that does ``places`` things at a time; behind ``silent_at`` it counts as gone."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    queue: Mapped[str]
    places: Mapped[int]
    silent_at: Mapped[datetime]
