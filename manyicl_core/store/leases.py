"""Who holds a job or an evaluation: claims, heartbeats, and fenced writes (design, section 4).

A claim is one guarded UPDATE that raises the row's fence. Whoever writes for running work names
the fence it claimed; when the work has been claimed again, the write finds no row and raises
``LeaseLost``. All times are the database's clock.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, Literal, TypeVar

from sqlalchemy import ColumnElement, and_, case, func, or_, select, update
from sqlalchemy.orm import Session

from manyicl_core.store.job_states import ALLOWED, CANCELLED, PAUSED, QUEUED, RUNNING, sources_of
from manyicl_core.store.tables import Leased
from manyicl_core.store.usage.service import add_usage, worker_meter

_METERED_EVERY = timedelta(seconds=15)
_GIVEN_UP = datetime(1970, 1, 1, tzinfo=UTC)
"""The end of a lease that did not run out: its worker has given it up, and has counted what there was to count."""

Row_co = TypeVar("Row_co", bound=Leased, covariant=True)


class LeaseLost(Exception):
    """Somebody else holds the work now, or it is over; stop and write nothing."""


@dataclass(frozen=True, slots=True)
class Claim(Generic[Row_co]):
    """The right to write for a row of ``table``, as long as the fence stands."""

    table: type[Row_co]
    id: str
    fence: int


def is_held(table: type[Leased]) -> ColumnElement[bool]:
    """The work runs, and its worker is not silent."""
    return and_(table.state == RUNNING, table.lease_expires_at >= func.now())


def is_claimable(table: type[Leased]) -> ColumnElement[bool]:
    """The work is queued, or left by a worker that went silent."""
    return or_(table.state == QUEUED, and_(table.state == RUNNING, table.lease_expires_at < func.now()))


def claim_work(session: Session, table: type[Row_co], id_: str, lease_seconds: float) -> Claim[Row_co] | None:
    """Take the work, unless somebody else holds it; a lease that has run out is counted as a loss."""
    candidate = select(table.id).where(table.id == id_, is_claimable(table)).with_for_update(skip_locked=True)
    ran_out = and_(table.state == RUNNING, table.lease_expires_at > _GIVEN_UP)
    fence = session.execute(
        update(table)
        .where(table.id.in_(candidate))
        .values(
            state=RUNNING,
            fence=table.fence + 1,
            started_at=func.coalesce(table.started_at, func.now()),
            lease_expires_at=func.now() + timedelta(seconds=lease_seconds),
            metered_at=func.now(),
            infrastructure_failures=table.infrastructure_failures + case((ran_out, 1), else_=0),
        )
        .returning(table.fence)
    ).scalar()
    return None if fence is None else Claim(table, id_, fence)


def renew_lease(session: Session, claim: Claim[Leased], lease_seconds: float) -> bool:
    """Hold the work for another lease; say whether a cancel was asked for.

    Raises:
        LeaseLost: the fence has moved on.
    """
    row = session.execute(
        update(claim.table)
        .where(*_held(claim))
        .values(lease_expires_at=func.now() + timedelta(seconds=lease_seconds))
        .returning(claim.table.cancel_requested_at, claim.table.metered_at < func.now() - _METERED_EVERY)
    ).first()
    if row is None:
        raise LeaseLost(claim.id)
    cancel_requested_at, meter_is_due = row
    if meter_is_due:
        meter(session, claim.table, claim.id, goes_on=True)
    return cancel_requested_at is not None


def give_up_lease(session: Session, claim: Claim[Leased], lost: bool) -> None:
    """Let the work be claimed again at once; ``lost``: something went wrong, and that is counted.

    Raises:
        LeaseLost: the fence has moved on.
    """
    row = hold(session, claim)
    row.lease_expires_at = _GIVEN_UP
    row.infrastructure_failures += lost
    meter(session, claim.table, claim.id, goes_on=False)


def hold(session: Session, claim: Claim[Row_co]) -> Row_co:
    """The row, locked until the transaction ends, for one fenced write.

    Raises:
        LeaseLost: the fence has moved on.
    """
    query = select(claim.table).where(*_held(claim)).with_for_update().execution_options(populate_existing=True)
    row = session.scalar(query)
    if row is None:
        raise LeaseLost(claim.id)
    return row


def finish(session: Session, row: Leased, state: str) -> None:
    """End the work in one of the final states; the caller holds the row."""
    assert state in ALLOWED[row.state]
    finished_at = session.scalar(select(func.now()))
    row.state = state
    row.finished_at = finished_at
    row.lease_expires_at = None
    meter(session, type(row), row.id, goes_on=False)


def meter(session: Session, table: type[Leased], id_: str, goes_on: bool) -> None:
    """Count the time that a worker has held the work since this was last done; the caller has locked the row.

    What a killed worker has not counted yet, seconds, is never counted.
    """
    held = func.extract("epoch", func.now() - table.metered_at)
    row = session.execute(select(table.project_id, held).where(table.id == id_, table.metered_at.is_not(None))).first()
    if row is None:
        return  # no worker held it, or it is part of other work, whose holder counts
    project_id, seconds = row
    add_usage(session, project_id, {worker_meter(table): round(seconds * 1000)})
    session.execute(update(table).where(table.id == id_).values(metered_at=func.now() if goes_on else None))


def request_cancel(session: Session, row: Leased) -> Literal["cancelled", "asked"] | None:
    """Cancel waiting work at once, or ask a running one's worker to stop it; None: nothing to do any more."""
    table = type(row)
    now = func.now()
    cancelled = session.execute(
        update(table)
        .where(table.id == row.id, table.state.in_(sources_of(CANCELLED) - {RUNNING}))
        .values(state=CANCELLED, finished_at=now, cancel_requested_at=now, fence=table.fence + 1)
        .returning(table.id)
    ).scalar()
    if cancelled:
        return "cancelled"
    asked = session.execute(
        update(table)
        .where(table.id == row.id, table.state == RUNNING, table.cancel_requested_at.is_(None))
        .values(cancel_requested_at=now)
        .returning(table.id)
    ).scalar()
    return "asked" if asked else None


def pause(session: Session, row: Leased) -> bool:
    """Take the work out of the queue or from its worker; False: it is not there, or is being cancelled.

    The worker learns from its next heartbeat or write that the work is no longer its own, and stops
    its process. Nothing has to wait for that: what it would still write, the fence refuses.
    """
    table = type(row)
    paused = session.execute(
        update(table)
        .where(table.id == row.id, table.state.in_(sources_of(PAUSED)), table.cancel_requested_at.is_(None))
        .values(state=PAUSED, fence=table.fence + 1, lease_expires_at=None)
        .returning(table.id)
    ).scalar()
    if paused is None:
        return False
    meter(session, table, row.id, goes_on=False)
    return True


def resume(session: Session, row: Leased) -> bool:
    """Put paused work back into the queue, at its old place; False: it is not paused."""
    table = type(row)
    resumed = session.execute(
        update(table).where(table.id == row.id, table.state == PAUSED).values(state=QUEUED).returning(table.id)
    ).scalar()
    return resumed is not None


def _held(claim: Claim[Leased]) -> tuple[ColumnElement[bool], ...]:
    """The conditions that every write for running work carries."""
    return (claim.table.id == claim.id, claim.table.fence == claim.fence, claim.table.state == RUNNING)
