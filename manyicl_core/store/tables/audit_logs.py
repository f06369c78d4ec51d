"""Who wrote what, and when."""

from sqlalchemy import ForeignKey, Identity, Index
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, Bytes, CreatedAt


class AuditLog(Base):
    """One write request that succeeded; ``number`` orders them.

    Attributes:
        project_id: the project that was written to; the key may be an operator's, of another one.
        route: its template, such as ``/v1/files/{file_id}``.
        resource_id: what was made, changed or deleted, where that is one thing.
    """

    __tablename__ = "audit_logs"
    __table_args__ = (Index(None, "project_id", "number"),)

    number: Mapped[Bytes] = mapped_column(Identity(always=True), primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[CreatedAt]
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    method: Mapped[str]
    route: Mapped[str]
    resource_id: Mapped[str | None]
    request_id: Mapped[str]
    status: Mapped[int]
