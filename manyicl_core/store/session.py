"""The one rule of sessions: services flush, and only ``transaction`` commits."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from manyicl_core.store.engine import get_engine


@contextmanager
def transaction() -> Iterator[Session]:
    """A session whose work is committed when the block ends well, and undone when it raises."""
    with Session(get_engine(), expire_on_commit=False) as session, session.begin():
        yield session
