"""Who else may call a model: permissions that its project gives to others."""

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, CreatedAt


class ModelPermission(Base):
    """``project_id`` may call the model ``model_id``, which belongs to another project."""

    __tablename__ = "model_permissions"
    __table_args__ = (UniqueConstraint("project_id", "model_id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), index=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    created_at: Mapped[CreatedAt]
