"""Rows that lists have shown and that are gone: where a page goes on that starts behind one."""

from datetime import datetime

from sqlalchemy import Index, func
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base


class DeletedRow(Base):
    """What is left of a deleted row for a day.

    Attributes:
        table: that it was in.
        owner_id: whose list it stood in: its project's, or a model's.
        created_at: when the row was made, by which lists are ordered.
    """

    __tablename__ = "deleted_rows"
    __table_args__ = (Index(None, "deleted_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    table: Mapped[str]
    owner_id: Mapped[str]
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime] = mapped_column(server_default=func.now())
