"""An api process over a private PostgreSQL, with neither broker nor engine nor workers: what lists and streams need."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from manyicl_core.child_process import spawn, stop
from manyicl_core.embedded import EmbeddedPostgres, free_port
from manyicl_core.settings import get_settings
from manyicl_core.store.engine import get_engine
from manyicl_core.store.migrate import migrate
from manyicl_core.store.projects.service import create_key, get_or_create_project
from manyicl_core.store.session import transaction

_NOBODY = "127.0.0.1:1"


@dataclass(frozen=True, slots=True)
class Database:
    """A migrated database with one project."""

    url: str
    project_id: str
    key: str


@dataclass(frozen=True, slots=True)
class Api:
    """A running api process."""

    pid: int
    host: str
    port: int
    headers: dict[str, str]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.host}:{self.port}"


@contextmanager
def running_postgres(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A private PostgreSQL with its files under ``folder``."""
    postgres = EmbeddedPostgres(folder / "postgres")
    postgres.prepare()
    process = postgres.start(folder / "postgres.log")
    try:
        while not postgres.answers():
            time.sleep(0.05)
        yield postgres
    finally:
        stop(process, 10, signal.SIGINT)
        postgres.tidy()


def make_database(url: str, folder: Path) -> Database:
    """Migrate the database at ``url`` and make a project in it; from now on the settings are its own."""
    os.environ.update(
        MANYICL_DATABASE_URL=url,
        MANYICL_BROKER_URL=f"redis://{_NOBODY}/0",
        MANYICL_STORAGE_URL=(folder / "artifacts").as_uri(),
        MANYICL_ENGINE_URL=f"http://{_NOBODY}",
        MANYICL_SECRET_KEY="a secret of the benchmark",  # noqa: S106 - not one
    )
    get_settings.cache_clear()
    get_engine.cache_clear()
    migrate(url)
    with transaction() as session:
        project = get_or_create_project(session, "benchmark")
        key = create_key(session, project)
    get_engine().dispose()
    return Database(url, project.id, key)


@contextmanager
def running_api(database: Database) -> Iterator[Api]:
    """An api over the database."""
    port = free_port()
    environment = {**os.environ, "MANYICL_DATABASE_URL": database.url, "MANYICL_PORT": str(port)}
    process = spawn([sys.executable, "-m", "manyicl_core.cli.main", "api"], environment, subprocess.DEVNULL)
    api = Api(process.pid, "127.0.0.1", port, {"authorization": f"Bearer {database.key}"})
    try:
        while not _answers(api):
            assert process.poll() is None, "the api ended"
            time.sleep(0.1)
        yield api
    finally:
        stop(process, 5)


def _answers(api: Api) -> bool:
    try:
        return httpx2.get(f"{api.url}/health").is_success
    except httpx2.TransportError:
        return False
