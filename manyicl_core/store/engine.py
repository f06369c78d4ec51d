"""The connection pool to PostgreSQL."""

from functools import lru_cache
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from manyicl_core.settings import get_settings, required

LOCK_WAIT = "10s"
"""The longest that a request waits for what another one has locked."""

_LOCK_NOT_AVAILABLE = "55P03"


def driver_url(url: str) -> str:
    """A ``postgresql://`` URL for SQLAlchemy's psycopg 3 driver."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def make_engine(url: str) -> Engine:
    """A pool that tests a connection before it lends it, so that a database restart goes unseen."""
    return create_engine(
        driver_url(url),
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=30,
        json_deserializer=from_json,  # four times faster than json, and a page of jobs has a hundred JSON columns
        connect_args={"connect_timeout": 5, "application_name": "manyicl"},
    )


def limit_lock_waits() -> None:
    """From now on no new connection of this process's pool waits for a lock longer than ``LOCK_WAIT``.

    For a process that answers requests: each of those that wait keeps a thread.
    """
    event.listen(get_engine(), "connect", _limit_lock_waits)


def _limit_lock_waits(connection: Any, _: object) -> None:
    connection.execute(f"SET lock_timeout = '{LOCK_WAIT}'")
    connection.commit()


def waited_too_long(error: OperationalError) -> bool:
    """Whether a statement was given up because another transaction kept its lock."""
    return getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE


@lru_cache(maxsize=1)
def get_engine() -> Engine:
    """This process's pool, for the database of its settings."""
    return make_engine(required(get_settings(), "database_url"))
