"""Which work comes next: that of the project with the least running work, then the oldest.

The waiting work of a project is numbered from how much of it runs, oldest first, and low numbers
come first whosever they are: a project's hundred jobs stand behind another's only one. Hints carry
no order: a worker that gets one takes what comes next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, false, func, literal, not_, or_, select, true, union_all
from sqlalchemy.orm import Session

from manyicl_core.store.job_states import QUEUED
from manyicl_core.store.leases import Claim, claim_work, is_claimable, is_held
from manyicl_core.store.quotas.service import limit_of, lock_project, running_jobs, spent_today
from manyicl_core.store.tables import Evaluation, Job, Leased

_LIMITED = frozenset({Job, Evaluation})
"""What counts for the quota of running jobs."""

Rows = Mapping[type[Leased], ColumnElement[bool]]
"""Some rows of some tables."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Work that may be claimed."""

    table: type[Leased]
    id: str
    project_id: str


def waiting_work(
    session: Session, tables: Sequence[type[Leased]], limit: int, but_for: Rows | None = None
) -> list[Waiting]:
    """What waits for a worker in the rows of ``tables``, in fair order.

    Work that its project's quotas hold back is left out: that for which too much runs already, and
    new jobs when the project has trained its tokens of the day.

    Args:
        session: reads.
        tables: what the worker does.
        limit: so much at most.
        but_for: what it has no room for now.
    """
    rows = session.execute(_in_order(tables, but_for or {}).limit(limit))
    of_name: dict[str, type[Leased]] = {table.__tablename__: table for table in tables}
    return [Waiting(of_name[row.kind], row.id, row.project_id) for row in rows]


def claim_waiting(session: Session, waiting: Waiting, lease_seconds: float) -> Claim[Leased] | None:
    """Take the work, unless somebody else has taken it or its project's last place."""
    if waiting.table in _LIMITED:
        limit = lock_project(session, waiting.project_id)["running_jobs"]
        if running_jobs(session, waiting.project_id) >= limit:
            return None
    return claim_work(session, waiting.table, waiting.id, lease_seconds)


def _in_order(tables: Sequence[type[Leased]], but_for: Rows) -> Select[tuple[str, str, str]]:
    waiting = union_all(
        *(
            select(literal(table.__tablename__).label("kind"), table.id, table.project_id, table.created_at).where(
                is_claimable(table), _may_start(table), not_(but_for.get(table, false()))
            )
            for table in tables
        )
    ).subquery()
    held = union_all(*(select(table.project_id).where(is_held(table)) for table in tables)).subquery()
    running = select(held.c.project_id, func.count().label("count")).group_by(held.c.project_id).subquery()
    oldest_first = (waiting.c.created_at, waiting.c.id)
    number = func.row_number().over(partition_by=waiting.c.project_id, order_by=oldest_first)
    numbered = (
        select(waiting, (number + func.coalesce(running.c.count, 0)).label("number"))
        .outerjoin(running, running.c.project_id == waiting.c.project_id)
        .subquery()
    )
    query = select(numbered.c.kind, numbered.c.id, numbered.c.project_id)
    if _LIMITED.issuperset(tables):
        query = query.where(numbered.c.number <= limit_of("running_jobs", numbered.c.project_id))
    return query.order_by(numbered.c.number, numbered.c.created_at, numbered.c.id)


def _may_start(table: type[Leased]) -> ColumnElement[bool]:
    """A new job waits for the tokens of another day; one that has begun goes on."""
    if table is not Job:
        return true()
    return or_(Job.state != QUEUED, not_(spent_today(Job.project_id)))
