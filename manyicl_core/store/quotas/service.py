"""A project's quotas: the installation's, unless its operator has set others; and whether they admit more.

Whoever takes a place locks the project's row until the transaction ends, so two creations never
both take the last one.
"""

from typing import Literal, get_args

from sqlalchemy import BigInteger, ColumnElement, SQLColumnExpression, cast, delete, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from manyicl_core.errors import UserError
from manyicl_core.settings import get_settings
from manyicl_core.store.job_states import PAUSED, QUEUED, RUNNING, VALIDATING_FILES
from manyicl_core.store.tables import Evaluation, File, Job, Leased, Project, Quota, Upload, UploadPart
from manyicl_core.store.tables.uploads import PENDING
from manyicl_core.store.usage.service import seconds_to_midnight, trained_today

QuotaName = Literal[
    "stored_bytes",
    "queued_jobs",
    "running_jobs",
    "training_tokens_per_day",
    "requests_per_minute",
    "tokens_per_minute",
]
QUOTAS: tuple[QuotaName, ...] = get_args(QuotaName)

MOST = 10**18 - 1
"""The largest limit: a sum with it still fits 64 bits."""

_QUEUE_RETRY_MS = 5000
_REMEDY = "or ask the operator of this installation for more (`manyicl quotas set`, or over the API)"


class QuotaExceeded(UserError):
    """A quota leaves no room, whenever the request comes again."""

    status = 403
    type = "insufficient_quota"

    def __init__(self, name: QuotaName, use: str, remedy: str) -> None:
        super().__init__(f"The project's quota {name} is used up: {use}. {remedy}, {_REMEDY}", name, self.type)


class QuotaExceededForNow(QuotaExceeded):
    """A quota leaves no room at the moment."""

    status = 429

    def __init__(self, name: QuotaName, use: str, remedy: str, retry_after_ms: int) -> None:
        super().__init__(name, use, remedy)
        self.retry_after_ms = retry_after_ms


def project_quotas(session: Session, project_id: str) -> dict[QuotaName, int]:
    """Every quota of a project."""
    rows = session.scalars(select(Quota).where(Quota.project_id == project_id))
    own = {row.name: row.limit for row in rows}
    return {name: own.get(name, _default(name)) for name in QUOTAS}


def set_quota(session: Session, project_id: str, name: QuotaName, limit: int | None) -> None:
    """Give a project a quota of its own; None: the installation's again."""
    assert limit is None or 0 <= limit <= MOST
    if limit is None:
        session.execute(delete(Quota).where(Quota.project_id == project_id, Quota.name == name))
        return
    new = insert(Quota).values(project_id=project_id, name=name, limit=limit)
    session.execute(new.on_conflict_do_update(index_elements=("project_id", "name"), set_={"limit": limit}))


def admit_bytes(session: Session, project_id: str, more: int) -> None:
    """Check that a project may keep so many bytes more; call it just before the row is made.

    Raises:
        QuotaExceeded: they do not fit.
    """
    _lock(session, project_id)
    check_bytes(session, project_id, more)


def check_bytes(session: Session, project_id: str, more: int) -> None:
    """As ``admit_bytes``, without a lock: before the work on bytes that are refused in the end.

    Raises:
        QuotaExceeded: they do not fit as of now.
    """
    limit, kept = session.execute(
        select(limit_of("stored_bytes", literal(project_id)), _stored_bytes(project_id))
    ).one()
    if kept + more > limit:
        use = f"{kept} of {limit} bytes are kept, and this would be {more} more"
        raise QuotaExceeded("stored_bytes", use, "Delete files that are no longer needed")


def admit_job(session: Session, project_id: str) -> None:
    """Check that a project may queue one more job or evaluation.

    Call it before any work, and again behind ``lock_project`` just before the row is made.

    Raises:
        QuotaExceededForNow: as many wait as may.
    """
    limit = project_quotas(session, project_id)["queued_jobs"]
    waiting = queued_jobs(session, project_id)
    if waiting >= limit:
        use = f"{waiting} of {limit} jobs and evaluations wait or are paused"
        remedy = "Try again when one has started, or cancel one"
        raise QuotaExceededForNow("queued_jobs", use, remedy, _QUEUE_RETRY_MS)


def admit_training(session: Session, project_id: str, token_budget: int | None) -> None:
    """Check that a project may train today; call it as ``admit_job``.

    Args:
        token_budget: the tokens of the new job, where they are known before it starts.

    Raises:
        QuotaExceededForNow: the tokens of the day are used up, or the budget is larger than what is left.
    """
    limit = project_quotas(session, project_id)["training_tokens_per_day"]
    used = trained_tokens_today(session, project_id)
    if used >= limit or (token_budget or 0) > limit - used:
        use = f"{used} of {limit} tokens are trained since 00:00 UTC"
        if token_budget is not None:
            use += f", and this job would train {token_budget} more"
        retry_after_ms = round(seconds_to_midnight(session) * 1000)
        raise QuotaExceededForNow("training_tokens_per_day", use, "Try again after 00:00 UTC", retry_after_ms)


def stored_bytes(session: Session, project_id: str) -> int:
    """The bytes of a project's files, and of its pending uploads: announced, or sent where those are more."""
    return session.execute(select(_stored_bytes(project_id))).scalar_one()


def trained_tokens_today(session: Session, project_id: str) -> int:
    """The tokens that a project has trained since 00:00 UTC."""
    return session.execute(select(trained_today(literal(project_id)))).scalar_one()


def queued_jobs(session: Session, project_id: str) -> int:
    """How many jobs and evaluations of a project have not started, or are paused."""
    return sum(
        _count(session, table, project_id, table.state.in_((VALIDATING_FILES, QUEUED, PAUSED)))
        for table in (Job, Evaluation)
    )


def running_jobs(session: Session, project_id: str) -> int:
    """How many jobs and evaluations of a project workers hold."""
    return sum(
        _count(session, table, project_id, table.state == RUNNING, table.lease_expires_at >= func.now())
        for table in (Job, Evaluation)
    )


def _count(session: Session, table: type[Leased], project_id: str, *conditions: ColumnElement[bool]) -> int:
    query = select(func.count()).select_from(table).where(table.project_id == project_id, *conditions)
    return session.execute(query).scalar_one()


def limit_of(name: QuotaName, project_id: SQLColumnExpression[str]) -> ColumnElement[int]:
    """A project's quota, in a query."""
    own = select(Quota.limit).where(Quota.project_id == project_id, Quota.name == name).scalar_subquery()
    return func.coalesce(own, _default(name))


def spent_today(project_id: SQLColumnExpression[str]) -> ColumnElement[bool]:
    """Whether a project has trained its tokens of the day, in a query."""
    return trained_today(project_id) >= limit_of("training_tokens_per_day", project_id)


def lock_project(session: Session, project_id: str) -> dict[QuotaName, int]:
    """The project's quotas; whoever else locks the project waits until this transaction ends."""
    _lock(session, project_id)
    return project_quotas(session, project_id)


def _lock(session: Session, project_id: str) -> None:
    # Not against the rows that only refer to the project.
    session.execute(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))


def _stored_bytes(project_id: str) -> ColumnElement[int]:
    files = select(func.sum(File.bytes)).where(File.project_id == project_id)
    pending = Upload.state == PENDING, Upload.expires_at > func.now()
    sent = select(func.sum(UploadPart.bytes)).where(UploadPart.upload_id == Upload.id).scalar_subquery()
    # PostgreSQL's greatest() leaves NULL out.
    uploads = select(func.sum(func.greatest(Upload.bytes, sent))).where(Upload.project_id == project_id, *pending)
    total = func.coalesce(files.scalar_subquery(), 0) + func.coalesce(uploads.scalar_subquery(), 0)
    return cast(total, BigInteger)


def _default(name: QuotaName) -> int:
    value = getattr(get_settings(), f"quota_{name}")
    assert isinstance(value, int)
    return value
