"""The one rule of sessions: services flush, and only ``transaction`` commits. ``reading`` writes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from manyicl_core.store.engine import get_engine


@contextmanager
def transaction() -> Iterator[Session]:
    """A session whose work is committed when the block ends well, and undone when it raises."""
    with Session(get_engine(), expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def reading() -> Iterator[Session]:
    """A session for reads alone, without BEGIN and COMMIT: each is a round trip, and often there is one SELECT.

    Nothing is lost: a transaction here is READ COMMITTED, so each of its statements sees by itself
    what is committed when it begins. No locks, and nothing to write: it would be committed at once.
    """
    with Session(_autocommitting(get_engine()), autoflush=False, expire_on_commit=False) as session:
        yield session


@lru_cache(maxsize=1)
def _autocommitting(engine: Engine) -> Engine:
    """The same pool; a connection that it lends takes every statement by itself."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")
