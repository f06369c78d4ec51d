"""The columns of work that one worker at a time holds: jobs, evaluations, contexts."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.job_states import STATES
from manyicl_core.store.tables.base import Base, CreatedAt


class Leased(Base):
    """Work with a state, a lease and a fence.

    ``fence`` rises with every claim; whoever writes on behalf of running work names the fence it
    claimed, so a worker that lost the work can write nothing. Running work without a lease is
    part of other work, whose holder writes for it, and is never claimed itself. ``metered_at`` is
    up to when the time that workers held it is counted in the project's usage.
    """

    __abstract__ = True

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    created_at: Mapped[CreatedAt]
    state: Mapped[str]
    fence: Mapped[int] = mapped_column(default=0)
    lease_expires_at: Mapped[datetime | None]
    infrastructure_failures: Mapped[int] = mapped_column(default=0)
    metered_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]


def state_checks() -> tuple[CheckConstraint, CheckConstraint]:
    """What the database itself refuses: an unknown state, and an end without a time or the reverse."""
    return (
        CheckConstraint(f"state IN ({', '.join(repr(state) for state in STATES)})", name="state"),
        CheckConstraint("(state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)", name="finished"),
    )
