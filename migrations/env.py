"""Alembic's environment: one migration at a time, guarded by a lock in the database."""

from alembic import context
from sqlalchemy import pool, text
from sqlalchemy.engine import Connection, create_engine

from manyicl_core.store.engine import driver_url
from manyicl_core.store.tables import Base

_LOCK = 0x6D696772


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
    with context.begin_transaction():
        # Two processes that start together: the second waits, then finds nothing to do.
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _migrate(given)
else:
    url = context.config.get_main_option("sqlalchemy.url")
    assert url is not None
    with create_engine(driver_url(url), poolclass=pool.NullPool).connect() as connection_:
        _migrate(connection_)
        connection_.commit()
