"""Cursor pages as the ``openai`` client reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

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
