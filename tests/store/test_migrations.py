from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from manyicl_core.store.engine import make_engine
from manyicl_core.store.migrate import alembic_config, migrate
from manyicl_core.store.tables import Base
from tests.services import Servers


def test_migrations_have_a_single_head(servers: Servers) -> None:
    assert len(ScriptDirectory.from_config(alembic_config(servers.postgres.url)).get_heads()) == 1


def test_the_tables_are_what_the_code_says_also_after_going_down_and_up(servers: Servers) -> None:
    engine = make_engine(servers.postgres.url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("DROP DATABASE IF EXISTS migrations")
        connection.exec_driver_sql("CREATE DATABASE migrations")
    engine.dispose()
    url = servers.postgres.url.replace("/postgres?", "/migrations?")
    config = alembic_config(url)
    other = make_engine(url)
    for step in (command.upgrade, command.downgrade, command.upgrade):
        step(config, "head" if step is command.upgrade else "base")
        tables = set(inspect(other).get_table_names()) - {"alembic_version"}
        assert tables == (set(Base.metadata.tables) if step is command.upgrade else set())
    command.check(config)
    migrate(url)
    other.dispose()
