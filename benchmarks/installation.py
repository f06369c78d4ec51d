"""A whole installation around an api process of its own, for benchmarks that send it everything there is.

Private PostgreSQL and Valkey, an engine with a tiny random model, and no worker: what is queued stays queued.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from benchmarks.engine_under_load import running_engine
from manyicl_core.child_process import spawn, stop
from manyicl_core.embedded import EmbeddedPostgres, EmbeddedValkey, free_port
from manyicl_core.settings import get_settings
from manyicl_core.store.engine import get_engine
from manyicl_core.store.migrate import migrate
from manyicl_core.store.projects.service import create_key, get_or_create_project
from manyicl_core.store.session import transaction
from tests.tiny_model import make_tiny_model

TINY_MODEL = "tests/tiny-llama"
_START_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the api answers, for a key of a project of its own; and where it keeps artifacts."""

    base_url: str
    key: str
    api_pid: int
    artifacts: Path

    def peak_memory_bytes(self) -> int:
        """The most memory that the api process has had."""
        status = Path(f"/proc/{self.api_pid}/status").read_text(encoding="ascii")
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))

    def stored_files(self) -> set[str]:
        """The names of all artifacts."""
        return {str(path.relative_to(self.artifacts)) for path in self.artifacts.rglob("*") if path.is_file()}


@contextmanager
def running_installation(folder: Path) -> Iterator[Installation]:
    """Start everything in ``folder``; it ends with the block."""
    postgres, valkey = EmbeddedPostgres(folder / "postgres"), EmbeddedValkey.make(folder / "valkey")
    postgres.prepare()
    port = free_port()
    artifacts = folder / "artifacts"
    os.environ |= {
        "MANYICL_DATABASE_URL": postgres.url,
        "MANYICL_BROKER_URL": valkey.url,
        "MANYICL_STORAGE_URL": artifacts.as_uri(),
        "MANYICL_SECRET_KEY": "a secret of a benchmark",
        "MANYICL_BASE_MODEL": TINY_MODEL,
        "MANYICL_MODEL_FOLDER": str(make_tiny_model(folder / "model")),
        "MANYICL_PORT": str(port),
    }
    servers = [postgres.start(folder / "postgres.log"), valkey.start(folder / "valkey.log")]
    try:
        _wait(lambda: postgres.answers() and valkey.answers(), servers)
        migrate(postgres.url)
        for cached in (get_settings, get_engine):
            cached.cache_clear()
        with transaction() as session:
            key = create_key(session, get_or_create_project(session, "benchmark"))
        with running_engine(folder) as engine_url, _api(folder / "api.log", engine_url) as api:
            url = f"http://127.0.0.1:{port}"
            _wait(lambda: _healthy(url), [api])
            yield Installation(f"{url}/v1", key, api.pid, artifacts)
    finally:
        get_engine().dispose()
        for server in reversed(servers):
            stop(server, 10)
        postgres.tidy()


@contextmanager
def _api(log: Path, engine_url: str) -> Iterator[subprocess.Popen[str]]:
    with log.open("w", encoding="utf-8") as output:
        command = [sys.executable, "-m", "manyicl_core.cli.main", "api"]
        process = spawn(command, os.environ | {"MANYICL_ENGINE_URL": engine_url}, output, output)
    try:
        yield process
    finally:
        stop(process, 10)


def _wait(condition: Callable[[], bool], processes: Sequence[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
            raise RuntimeError("the installation did not start; its folder has the logs")
        time.sleep(0.1)


def _healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=2).is_success
    except httpx2.HTTPError:
        return False
