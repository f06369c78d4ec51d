"""An api process with a database and a broker of its own: the ground of the api's benchmarks."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from manyicl_core.child_process import spawn, stop
from manyicl_core.embedded import EmbeddedPostgres, EmbeddedValkey, free_port
from manyicl_core.settings import get_settings
from manyicl_core.store.migrate import migrate
from manyicl_core.store.projects.schemas import SCOPES
from manyicl_core.store.projects.service import create_key, get_or_create_project
from manyicl_core.store.session import transaction

_START_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Api:
    """Where it is, with a key of a project of its own that may do anything."""

    base_url: str
    api_key: str
    project_id: str
    pid: int

    def peak_memory_bytes(self) -> int:
        """The most memory that the process has had."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


@contextmanager
def running_api(
    folder: Path, engine_url: str, settings: dict[str, str], command: list[str] | None = None
) -> Iterator[Api]:
    """The api behind ``engine_url``, with everything it keeps in ``folder``; its settings are this process's too.

    Args:
        folder: for its data and logs.
        engine_url: may lead nowhere, where no answer is asked for.
        settings: further settings, such as ``model_folder``.
        command: what starts it; ``manyicl api`` by default.
    """
    postgres, valkey = EmbeddedPostgres(folder / "postgres"), EmbeddedValkey.make(folder / "valkey")
    own = {
        "database_url": postgres.url,
        "broker_url": valkey.url,
        "storage_url": (folder / "artifacts").as_uri(),
        "engine_url": engine_url,
        "secret_key": "a secret of the benchmark",
        "host": "127.0.0.1",
        "port": str(free_port()),
    }
    os.environ |= {f"MANYICL_{name.upper()}": value for name, value in {**own, **settings}.items()}
    get_settings.cache_clear()
    postgres.prepare()
    with ExitStack() as stack:
        stack.callback(postgres.tidy)
        database = postgres.start(folder / "postgres.log")
        stack.callback(stop, database, 10)
        broker = valkey.start(folder / "valkey.log")
        stack.callback(stop, broker, 5)
        _await(postgres.answers, database, folder / "postgres.log")
        _await(valkey.answers, broker, folder / "valkey.log")
        migrate(postgres.url)
        with transaction() as session:
            project = get_or_create_project(session, "benchmark")
            key = create_key(session, project, SCOPES)
        log = folder / "api.log"
        with log.open("w", encoding="utf-8") as output:
            process = spawn(
                command or [sys.executable, "-m", "manyicl_core.cli.main", "api"], dict(os.environ), output, output
            )
        stack.callback(stop, process, 5)
        base_url = f"http://127.0.0.1:{own['port']}/v1"
        _await(lambda: _listens(base_url), process, log)
        yield Api(base_url, key, project.id, process.pid)


def _await(condition: Callable[[], bool], process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it did not start:\n{log.read_text(encoding='utf-8')[-4000:]}")
        time.sleep(0.1)


def _listens(base_url: str) -> bool:
    """Whether it answers anything at all; it need not be healthy without an engine."""
    try:
        httpx2.get(f"{base_url}/models", timeout=2)
    except httpx2.HTTPError:
        return False
    return True
