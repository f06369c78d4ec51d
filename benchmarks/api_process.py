"""An api process with a database of its own: the ground of the api's benchmarks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from manyicl_core.child_process import spawn, stop
from manyicl_core.embedded import EmbeddedPostgres, EmbeddedValkey, free_port
from manyicl_core.settings import get_settings
from manyicl_core.store.engine import get_engine
from manyicl_core.store.migrate import migrate
from manyicl_core.store.projects.schemas import SCOPES
from manyicl_core.store.projects.service import create_key, get_or_create_project
from manyicl_core.store.session import transaction

HOST = "127.0.0.1"
NOBODY = f"{HOST}:1"
"""Where nothing listens: for what a benchmark asks nothing of."""

_START_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Database:
    """A migrated database with a project, and a key of it that may do anything."""

    url: str
    project_id: str
    api_key: str


@dataclass(frozen=True, slots=True)
class Api:
    """A running api process, with the key of its database's project."""

    port: int
    api_key: str
    project_id: str
    pid: int

    @property
    def base_url(self) -> str:
        """What a client is given."""
        return f"http://{HOST}:{self.port}/v1"

    @property
    def headers(self) -> dict[str, str]:
        """What a request carries."""
        return {"authorization": f"Bearer {self.api_key}"}

    def peak_memory_bytes(self) -> int:
        """The most memory that the process has had."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


@contextmanager
def running_postgres(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A private PostgreSQL with its files in ``folder``."""
    postgres, log = EmbeddedPostgres(folder / "postgres"), folder / "postgres.log"
    postgres.prepare()
    process = postgres.start(log)
    try:
        _await(postgres.answers, process, log)
        yield postgres
    finally:
        stop(process, 10, signal.SIGINT)
        postgres.tidy()


def make_database(url: str, folder: Path, settings: dict[str, str]) -> Database:
    """Migrate the database at ``url`` and make a project in it; the settings are from now on this process's too.

    Args:
        folder: for artifacts.
        settings: further ones, such as ``broker_url``; without them there is neither broker nor engine.
    """
    own = {
        "database_url": url,
        "broker_url": f"redis://{NOBODY}/0",
        "storage_url": (folder / "artifacts").as_uri(),
        "engine_url": f"http://{NOBODY}",
        "secret_key": "a secret of the benchmark",
        "host": HOST,
    }
    os.environ |= {f"MANYICL_{name.upper()}": value for name, value in {**own, **settings}.items()}
    get_settings.cache_clear()
    get_engine.cache_clear()
    migrate(url)
    with transaction() as session:
        project = get_or_create_project(session, "benchmark")
        key = create_key(session, project, SCOPES)
    return Database(url, project.id, key)


@contextmanager
def api_over(database: Database, folder: Path, command: list[str] | None = None) -> Iterator[Api]:
    """An api over the database, with its log in ``folder``; ``command`` starts it, ``manyicl api`` by default."""
    port = free_port()
    environment = {**os.environ, "MANYICL_DATABASE_URL": database.url, "MANYICL_PORT": str(port)}
    log = folder / f"api-{port}.log"
    with log.open("w", encoding="utf-8") as output:
        process = spawn(command or [sys.executable, "-m", "manyicl_core.cli.main", "api"], environment, output, output)
    api = Api(port, database.api_key, database.project_id, process.pid)
    try:
        _await(lambda: _listens(api), process, log)
        yield api
    finally:
        stop(process, 5)


@contextmanager
def running_api(
    folder: Path, engine_url: str, settings: dict[str, str], command: list[str] | None = None
) -> Iterator[Api]:
    """An api with a broker too, behind ``engine_url``, and with everything that it keeps in ``folder``.

    Args:
        settings: further settings, such as ``model_folder``.
        command: as for ``api_over``.
    """
    valkey, log = EmbeddedValkey.make(folder / "valkey"), folder / "valkey.log"
    with running_postgres(folder) as postgres:
        broker = valkey.start(log)
        try:
            _await(valkey.answers, broker, log)
            own = {"broker_url": valkey.url, "engine_url": engine_url}
            with api_over(make_database(postgres.url, folder, {**own, **settings}), folder, command) as api:
                yield api
        finally:
            stop(broker, 5)


def _await(condition: Callable[[], bool], process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it did not start:\n{log.read_text(encoding='utf-8')[-4000:]}")
        time.sleep(0.1)


def _listens(api: Api) -> bool:
    """Whether it answers anything at all; it need not be healthy without an engine."""
    try:
        httpx2.get(f"{api.base_url}/models", timeout=2)
    except httpx2.HTTPError:
        return False
    return True
