"""Fine-tuned models: weights, the base model they belong to, and the tasks they learnt."""

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, CreatedAt


class Model(Base):
    """A model that a job made; ``id`` is what a client names: ``ft:<base>:<project>:<suffix>:<id>``.

    ``adaptation`` says what the weights are: a ``lora`` adapter, or the ``full`` model. ``task`` is
    the one task of a dedicated job's model. A ``step`` makes it one of the job's checkpoints. ``tasks``
    are the definitions of those that it can be asked by name, None where nobody looked (the dataset
    has them too).
    """

    __tablename__ = "models"
    __table_args__ = (
        CheckConstraint("adaptation IN ('lora', 'full')", name="adaptation"),
        Index(None, "project_id", "created_at"),
        Index(None, "job_id"),
        Index(None, "weights_sha256"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    task: Mapped[str | None]
    step: Mapped[int | None]
    created_at: Mapped[CreatedAt]
    base_model: Mapped[str]
    adaptation: Mapped[str]
    weights_sha256: Mapped[str]
    dataset: Mapped[str]
    tasks: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB(none_as_null=True))
    trained_tokens: Mapped[int]
    encoder_version: Mapped[int]
    template_hash: Mapped[str]
