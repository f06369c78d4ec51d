"""Who holds a job: claims, heartbeats, and fenced writes (design, section 4).

A claim is one guarded UPDATE that raises the job's fence. Whoever writes for a running job names
the fence it claimed; when the job has been claimed again, the write finds no row and raises
``LeaseLost``. All times are the database's clock.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from manyicl_core.store.job_states import QUEUED, RUNNING
from manyicl_core.store.tables import Job


class LeaseLost(Exception):
    """Somebody else holds the job now, or it is over; stop and write nothing."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write for a job, as long as the fence stands."""

    job_id: str
    fence: int


def _claimable() -> ColumnElement[bool]:
    return or_(Job.state == QUEUED, and_(Job.state == RUNNING, Job.lease_expires_at < func.now()))


def claimable_jobs(session: Session, limit: int) -> list[str]:
    """Jobs that wait for a worker, oldest first: queued, or left by a worker that went silent."""
    return list(session.scalars(select(Job.id).where(_claimable()).order_by(Job.created_at).limit(limit)))


def claim_job(session: Session, job_id: str, lease_seconds: float) -> Claim | None:
    """Take the job, unless somebody else holds it."""
    candidate = select(Job.id).where(Job.id == job_id, _claimable()).with_for_update(skip_locked=True)
    lost = session.scalar(select(Job.state).where(Job.id == job_id)) == RUNNING
    fence = session.execute(
        update(Job)
        .where(Job.id.in_(candidate))
        .values(
            state=RUNNING,
            fence=Job.fence + 1,
            started_at=func.coalesce(Job.started_at, func.now()),
            lease_expires_at=func.now() + timedelta(seconds=lease_seconds),
            infrastructure_failures=Job.infrastructure_failures + (1 if lost else 0),
        )
        .returning(Job.fence)
    ).scalar()
    return None if fence is None else Claim(job_id, fence)


def renew_lease(session: Session, claim: Claim, lease_seconds: float) -> bool:
    """Hold the job for another lease; say whether a cancel was asked for.

    Raises:
        LeaseLost: the fence has moved on.
    """
    row = session.execute(
        update(Job)
        .where(*held(claim))
        .values(lease_expires_at=func.now() + timedelta(seconds=lease_seconds))
        .returning(Job.cancel_requested_at)
    ).first()
    if row is None:
        raise LeaseLost(claim.job_id)
    return row[0] is not None


def give_up_lease(session: Session, claim: Claim) -> None:
    """Let the job be claimed again at once.

    Raises:
        LeaseLost: the fence has moved on.
    """
    hold(session, claim).lease_expires_at = session.scalar(select(func.now() - timedelta(microseconds=1)))


def hold(session: Session, claim: Claim) -> Job:
    """The job's row, locked until the transaction ends, for one fenced write.

    Raises:
        LeaseLost: the fence has moved on.
    """
    job = session.scalar(select(Job).where(*held(claim)).with_for_update().execution_options(populate_existing=True))
    if job is None:
        raise LeaseLost(claim.job_id)
    return job


def held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    """The conditions that every write for a running job carries."""
    return (Job.id == claim.job_id, Job.fence == claim.fence, Job.state == RUNNING)
