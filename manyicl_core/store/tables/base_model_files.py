"""Which files stand behind the id of a base model."""

from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, CreatedAt


class BaseModelFiles(Base):
    """The files that everything here was made on; ``digest`` tells their weights and tokenizer from others."""

    __tablename__ = "base_model_files"

    base_model: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]
    created_at: Mapped[CreatedAt]
