"""Fixtures: a real installation, with private PostgreSQL and Valkey, engine and api over HTTP.

One a test process; every test gets a project of its own, so tests do not see each other.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import uvicorn
from fastapi import FastAPI
from openai import OpenAI
from sqlalchemy import func, update

from api.app import create_app
from manyicl_core.base_models.load import load_base_model
from manyicl_core.child_process import spawn, stop
from manyicl_core.embedded import EmbeddedPostgres, EmbeddedValkey, free_port
from manyicl_core.ids import new_id
from manyicl_core.inference.adapters import Adapters
from manyicl_core.inference.engine import Engine
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix_store import PrefixStore
from manyicl_core.inference.server import create_app as create_engine_app
from manyicl_core.inference.vocabulary import Vocabulary
from manyicl_core.objects import open_store
from manyicl_core.settings import get_settings
from manyicl_core.store.engine import get_engine
from manyicl_core.store.hints import get_celery
from manyicl_core.store.job_states import CANCELLED, FINAL
from manyicl_core.store.migrate import migrate
from manyicl_core.store.projects.service import create_key, get_or_create_project
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Batch, Context, Evaluation, Job, Leased
from tests.s3_server import S3Server

BASE_MODEL = "tests/tiny-llama"


def wait_for(condition: Callable[[], object], what: str, seconds: float = 240) -> None:
    """Wait for a state, not for time to pass.

    A look at the service costs it 10 ms and more of the processor that what is waited for needs as
    well: the longer that takes, the rarer are the looks.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < seconds, f"gave up waiting for {what}"
        time.sleep(min(max(0.02, waited / 20), 0.25))


@dataclass
class Servers:
    """The private database and broker of this test process."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    folder: Path
    broker: subprocess.Popen[str] | None = None
    database: subprocess.Popen[str] | None = None

    def start_postgres(self) -> None:
        """Start the database, for the first time or after a test has ended it."""
        self.database = self.postgres.start(self.folder / "postgres.log")
        wait_for(self.postgres.answers, "postgres")

    def stop_postgres(self) -> None:
        """End the database as a restart of its machine does."""
        assert self.database is not None
        stop(self.database, 10, signal.SIGINT)

    def start_valkey(self) -> None:
        """Start the broker, for the first time or after a test has ended it."""
        if self.broker is not None:
            self.broker.wait()
        self.broker = self.valkey.start(self.folder / "valkey.log")
        wait_for(self.valkey.answers, "valkey")


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A temporary folder outside of pytest's, which every starting pytest closes to other users.

    As root, PostgreSQL runs as another user.
    """
    with tempfile.TemporaryDirectory(prefix="manyicl-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(prefix="manyicl-tests-") as folder:
        yield from _run_servers(Path(folder))


def _run_servers(folder: Path) -> Iterator[Servers]:
    postgres = EmbeddedPostgres(folder / "postgres")
    postgres.prepare()
    servers_ = Servers(postgres, EmbeddedValkey.make(folder / "valkey"), folder)
    try:
        servers_.start_postgres()
        servers_.start_valkey()
        migrate(postgres.url)
        yield servers_
    finally:
        if servers_.broker is not None:
            stop(servers_.broker, 5)
        servers_.stop_postgres()
        postgres.tidy()


on_both_stores = pytest.mark.parametrize("installation", ["folder", "s3"], indirect=True)
"""The test runs twice, each time in an installation with another artifact store."""


@pytest.fixture(scope="session")
def installation(request: pytest.FixtureRequest, servers: Servers, tiny_model: Path) -> Iterator[str]:
    """A running api and engine; gives the api's base URL. Its settings are in the environment.

    Objects are kept in a folder, or on S3 where a test or MANYICL_TEST_STORAGE says so.
    """
    storage = getattr(request, "param", os.environ.get("MANYICL_TEST_STORAGE", "folder"))
    api_port, engine_port = free_port(), free_port()
    settings = {
        "MANYICL_DATABASE_URL": servers.postgres.url,
        "MANYICL_BROKER_URL": servers.valkey.url,
        "MANYICL_STORAGE_URL": _storage_url(storage, request, servers.folder),
        "MANYICL_ENGINE_URL": f"http://127.0.0.1:{engine_port}",
        "MANYICL_SECRET_KEY": "a secret of the tests",
        # Trainers that step back would starve beside the other tests' processes.
        "MANYICL_JOB_NICE": "0",
        "MANYICL_BASE_MODEL": BASE_MODEL,
        "MANYICL_MODEL_FOLDER": str(tiny_model),
        "MANYICL_LEASE_SECONDS": "3",
        "MANYICL_DISPATCH_SECONDS": "0.2",
        "MANYICL_THREADS": "1",
        "MANYICL_WEBHOOK_PRIVATE_ADDRESSES": "true",
    }
    if get_engine.cache_info().currsize:  # an installation before this one
        get_engine().dispose()
    os.environ.update(settings)
    for cached in (get_settings, get_engine, get_celery):
        cached.cache_clear()
    with serving(_engine_app(tiny_model, servers.folder), engine_port), serving(create_app(), api_port):
        yield f"http://127.0.0.1:{api_port}/v1"
    get_engine().dispose()


def _storage_url(storage: str, request: pytest.FixtureRequest, folder: Path) -> str:
    assert storage in {"folder", "s3"}, f"there is no store {storage!r} for tests"
    if storage == "folder":
        return (folder / "artifacts").as_uri()
    server: S3Server = request.getfixturevalue("s3_server")
    return server.new_bucket()


@pytest.fixture
def api_key(installation: str) -> str:
    with transaction() as session:
        return create_key(session, get_or_create_project(session, new_id("p")))


@pytest.fixture
def client(installation: str, api_key: str) -> Iterator[OpenAI]:
    """The unmodified client, in a project of its own."""
    with OpenAI(base_url=installation, api_key=api_key, max_retries=0) as client_:
        yield client_


@pytest.fixture
def start_worker(installation: str, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts real workers, as `manyicl worker` does; they end with the test.

    What earlier tests left waiting is cancelled: workers would see to it first.
    """
    _cancel_waiting(Job, Evaluation)
    yield from _starter("worker", tmp_path)


@pytest.fixture
def start_hosting(installation: str, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts real hosting workers, as `manyicl hosting` does; they end with the test."""
    _cancel_waiting(Context, Batch)
    yield from _starter("hosting", tmp_path)


def _cancel_waiting(*tables: type[Leased]) -> None:
    with transaction() as session:
        for table in tables:
            session.execute(
                update(table)
                .where(table.state.not_in(FINAL))
                .values(state=CANCELLED, finished_at=func.now(), fence=table.fence + 1)
            )


def _starter(command: str, folder: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        with (folder / f"{command}-{len(started)}.log").open("w", encoding="utf-8") as log:
            arguments = [sys.executable, "-m", "manyicl_core.cli.main", command]
            started.append(spawn(arguments, dict(os.environ), log, log))
        return started[-1]

    yield start
    for process in started:
        stop(process, 2)


@contextmanager
def serving(app: FastAPI, port: int) -> Iterator[None]:
    """Serve an application over HTTP from a thread."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started or not thread.is_alive(), "the server")
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def _engine_app(model_folder: Path, scratch: Path) -> FastAPI:
    torch.set_num_threads(1)
    model = LanguageModel(load_base_model(model_folder, torch.device("cpu"), torch.float32))
    store = open_store(os.environ["MANYICL_STORAGE_URL"])
    adapters = Adapters(model, store, scratch / "adapters", capacity=2)
    vocabulary = Vocabulary(model_folder, model.vocabulary)
    engine = Engine(model, vocabulary, adapters, PrefixStore(1 << 26))
    return create_engine_app(engine, vocabulary, BASE_MODEL)
