"""Fine-tuned models: an adapter, the base model it belongs to, and the tasks it learnt."""

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, CreatedAt


class Model(Base):
    """A model that a job made; ``id`` is what a client names: ``ft:<base>:<project>:<suffix>:<id>``."""

    __tablename__ = "models"
    __table_args__ = (Index(None, "project_id", "created_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    created_at: Mapped[CreatedAt]
    base_model: Mapped[str]
    adapter_sha256: Mapped[str]
    dataset: Mapped[str]
    trained_tokens: Mapped[int]
    encoder_version: Mapped[int]
    template_hash: Mapped[str]
