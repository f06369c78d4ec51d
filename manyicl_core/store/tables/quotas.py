"""Quotas that differ from the installation's."""

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, Bytes


class Quota(Base):
    """One quota of one project, in place of the setting of that name."""

    __tablename__ = "quotas"
    __table_args__ = (CheckConstraint('"limit" >= 0', name="limit"),)

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    limit: Mapped[Bytes]
