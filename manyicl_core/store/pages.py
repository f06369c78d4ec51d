"""Cursor pages as the ``openai`` client reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from manyicl_core.errors import NotFound
from manyicl_core.store.tables import DeletedRow

_KEPT = timedelta(hours=24)

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Rows of one page, and whether more follow."""

    rows: Sequence[Row]
    has_more: bool


def fetch_page(
    session: Session,
    query: Select[Row],
    order: Sequence[InstrumentedAttribute[Any]],
    cursor: Sequence[Any] | None,
    limit: int,
    ascending: bool = False,
) -> Page[Row]:
    """The ``limit`` rows after ``cursor``.

    Args:
        order: the columns that order the rows, together unique.
        cursor: the values of ``order`` in the row after which the page starts.
    """
    key = tuple_(*order)
    if cursor is not None:
        after: ColumnElement[bool] = key > tuple(cursor) if ascending else key < tuple(cursor)
        query = query.where(after)
    query = query.order_by(*(column.asc() if ascending else column.desc() for column in order)).limit(limit + 1)
    rows = session.scalars(query).all()
    return Page(rows[:limit], len(rows) > limit)


def fetch_created(
    session: Session,
    query: Select[Row],
    owner: InstrumentedAttribute[str],
    owner_id: str,
    after: str | None,
    limit: int,
    what: str,
    ascending: bool = False,
) -> Page[Row]:
    """The ``limit`` rows of an owner's list after the one with the id ``after``, by creation.

    Args:
        query: the rows of a table with ``id`` and ``created_at``.
        owner: the table's column that says whose list a row stands in.
        after: a row of the owner, also one that ``query`` leaves out, or that was deleted less than a
            day ago (``delete_listed``).
        what: a row is called in the error.

    Raises:
        NotFound: the owner has and had no such row.
    """
    table = owner.class_
    cursor = None
    if after is not None:
        created_at = _created_at(session, owner, owner_id, after)
        if created_at is None:
            raise NotFound(what, after, "after")
        cursor = (created_at, after)
    return fetch_page(session, query, (table.created_at, table.id), cursor, limit, ascending)


def _created_at(session: Session, owner: InstrumentedAttribute[str], owner_id: str, row_id: str) -> datetime | None:
    table = owner.class_
    there = select(table.created_at).where(table.id == row_id, owner == owner_id)
    gone = select(DeletedRow.created_at).where(
        DeletedRow.id == row_id, DeletedRow.owner_id == owner_id, DeletedRow.table == table.__tablename__
    )
    return session.scalar(there.union_all(gone).limit(1))


def delete_listed(session: Session, row: Any, owner_id: str) -> None:
    """Delete a row that ``fetch_created`` lists; a page may still start behind it, for a day."""
    left = insert(DeletedRow).values(id=row.id, table=row.__tablename__, owner_id=owner_id, created_at=row.created_at)
    # Two requests may delete the same row at once.
    session.execute(left.on_conflict_do_nothing())
    session.delete(row)
    session.flush()


def forget_deleted(session: Session) -> None:
    """Keep what is left of deleted rows for a day."""
    session.execute(delete(DeletedRow).where(DeletedRow.deleted_at < func.now() - _KEPT))
