"""Count what projects use, by day, and read it.

Background work is counted in the transaction that records it, which is fenced and happens once:
so a retried, crashed or resumed attempt counts nothing twice.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Date, SQLColumnExpression, cast, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from manyicl_core.store.tables import Leased, Usage

TRAINED_TOKENS = "trained_tokens"
INTERACTIVE, BATCH = "interactive", "batch"

_TODAY = cast(func.timezone("UTC", func.now()), Date)


def served(kind: str, usage: Mapping[str, Any]) -> dict[str, int]:
    """The meters of one answered request.

    Args:
        kind: ``INTERACTIVE`` or ``BATCH``.
        usage: OpenAI's ``usage`` object of its answer.
    """
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        f"{kind}_requests": 1,
        f"{kind}_prompt_tokens": usage.get("prompt_tokens", 0),
        f"{kind}_cached_tokens": cached,
        f"{kind}_completion_tokens": usage.get("completion_tokens", 0),
    }


def worker_meter(table: type[Leased]) -> str:
    """The meter of the milliseconds that workers held a kind of work."""
    return f"{table.__tablename__}_worker_ms"


def add_usage(session: Session, project_id: str, amounts: Mapping[str, int]) -> None:
    """Add to today's meters of a project."""
    rows = [
        {"project_id": project_id, "day": _TODAY, "meter": meter, "amount": amount}
        for meter, amount in sorted(amounts.items())  # in one order, so that no two writers wait for each other
        if amount
    ]
    if not rows:
        return
    new = insert(Usage).values(rows)
    keys = ("project_id", "day", "meter")
    session.execute(new.on_conflict_do_update(index_elements=keys, set_={"amount": Usage.amount + new.excluded.amount}))


def trained_today(project_id: SQLColumnExpression[str]) -> ColumnElement[int]:
    """The tokens that a project has trained today, in a query."""
    amount = select(Usage.amount).where(
        Usage.project_id == project_id, Usage.day == _TODAY, Usage.meter == TRAINED_TOKENS
    )
    return func.coalesce(amount.scalar_subquery(), 0)


def seconds_to_midnight(session: Session) -> float:
    """How long today still lasts, in UTC by the database's clock."""
    now = session.execute(select(func.timezone("UTC", func.now()))).scalar_one()
    assert isinstance(now, datetime)
    midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time())
    return (midnight - now).total_seconds()


def today(session: Session) -> date:
    """The database's date in UTC."""
    return session.execute(select(_TODAY)).scalar_one()


def read_usage(session: Session, project_id: str, first: date, last: date) -> dict[date, dict[str, int]]:
    """Each day's meters from ``first`` to ``last``; a day without use is left out."""
    query = select(Usage).where(Usage.project_id == project_id, Usage.day.between(first, last))
    days: dict[date, dict[str, int]] = {}
    for row in session.scalars(query):
        days.setdefault(row.day, {})[row.meter] = row.amount
    return days
