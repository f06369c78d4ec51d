"""How fast workers train: one row a base model, kind of adapter and machine."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, CreatedAt


class Measurement(Base):
    """A worker's newest measurement; ``adaptation`` is the adapter's settings, ``values`` what was measured."""

    __tablename__ = "measurements"

    base_model: Mapped[str] = mapped_column(primary_key=True)
    adaptation: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(primary_key=True)
    dtype: Mapped[str] = mapped_column(primary_key=True)
    threads: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[CreatedAt]
    values: Mapped[dict[str, Any]]


class WantedMeasurement(Base):
    """A measurement that a plan has asked for, until it is made.

    Attributes:
        project_id: whose plan asked first.
        claimed_until: a worker is at it; None, or past: nobody is.
        failures: how often it came to nothing; ``problem`` is why the last time.
    """

    __tablename__ = "wanted_measurements"

    base_model: Mapped[str] = mapped_column(primary_key=True)
    adaptation: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    lora: Mapped[dict[str, Any] | None]
    asked_at: Mapped[CreatedAt]
    claimed_until: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(default=0)
    problem: Mapped[str | None]
