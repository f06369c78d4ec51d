"""What projects used: one number a project, day and meter."""

from datetime import date

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, Bytes


class Usage(Base):
    """How much of ``meter`` a project used on a day (UTC, by the database's clock)."""

    __tablename__ = "usage"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    meter: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[Bytes]
