"""How fast workers train: one row a base model, kind of adapter and machine."""

from typing import Any

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
