"""Webhooks: where a project wants to hear of events, and what is on its way there."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, CreatedAt


class WebhookEndpoint(Base):
    """A URL of a project, and the types of events that are sent there.

    Its signing secret follows from its id, ``secret_version`` and the installation's own secret, so
    this table holds none. Until ``old_secret_until`` the one before signs too.
    """

    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index(None, "project_id", "created_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    name: Mapped[str]
    url: Mapped[str]
    event_types: Mapped[list[str]] = mapped_column(JSONB)
    secret_version: Mapped[int]
    old_secret_until: Mapped[datetime | None]


class WebhookDelivery(Base):
    """One event on its way to one endpoint, and the log of that.

    Written in the transaction that makes the event true. ``next_attempt_at`` is NULL when it is
    delivered or given up; while an attempt runs, it is when somebody else may try, should the
    sender have died.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (Index(None, "next_attempt_at"), Index(None, "endpoint_id", "created_at", "id"))

    id: Mapped[str] = mapped_column(primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    created_at: Mapped[CreatedAt]
    event_id: Mapped[str]
    event_type: Mapped[str]
    body: Mapped[str]
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    delivered_at: Mapped[datetime | None]
    response_status: Mapped[int | None]
    error: Mapped[str | None]
