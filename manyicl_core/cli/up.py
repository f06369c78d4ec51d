"""``manyicl up``: the whole service in one foreground process and one data folder."""

import errno
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import httpx2
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from manyicl_core.child_process import spawn
from manyicl_core.cli.addresses import LOOPBACK, Address
from manyicl_core.cli.base_model import hold_files, ready_base_model
from manyicl_core.cli.services import Service, ServiceDidNotStart, Services
from manyicl_core.embedded import EmbeddedPostgres, EmbeddedServiceFailed, EmbeddedValkey, free_port
from manyicl_core.errors import Unauthorized
from manyicl_core.settings import get_settings
from manyicl_core.store.hints import HOSTING_QUEUE, JOBS_QUEUE
from manyicl_core.store.migrate import migrate
from manyicl_core.store.projects.schemas import SCOPES
from manyicl_core.store.projects.service import authenticate, create_key, get_or_create_project
from manyicl_core.store.session import reading, transaction
from manyicl_core.store.workers import forget_workers, living_places

_NEEDED_BYTES = 300 * 1024 * 1024
_OWN = ("database_url", "broker_url", "storage_url", "engine_url", "engine_port", "secret_key")
"""Settings of the processes alone: `manyicl up` has its own."""


class CannotStart(RuntimeError):
    """Why the service cannot start here, and what to do."""


def run_service(data_dir: Path, address: Address, console: Console) -> None:
    """Start everything, watch it until SIGINT or SIGTERM, stop everything.

    Raises:
        CannotStart: with the reason and the remedy.
    """
    folder = data_dir.expanduser().resolve()
    try:
        lock = _lock(folder)
        _check_room(folder)
        _check_address(address)
        ServiceRun(folder, address, console).run()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise CannotStart(f"the disk of {folder} is full; free some space and start again") from error
        raise
    except (ServiceDidNotStart, EmbeddedServiceFailed) as error:
        raise CannotStart(f"{error}; see {folder / 'logs'}") from error
    lock.close()


def _lock(folder: Path) -> IO[str]:
    """Hold the folder; the kernel lets go of it when this process ends, however that happens."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotStart(f"another `manyicl up` runs on {folder}; stop it, or give another --data-dir") from None
    return lock


def _check_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _NEEDED_BYTES:
        raise CannotStart(
            f"the disk of {folder} has {free >> 20} MB left and {_NEEDED_BYTES >> 20} MB are needed; free some space"
        )


def _check_address(address: Address) -> None:
    try:
        address.probe()
    except socket.gaierror:
        raise CannotStart(f"there is no address {address.host}; give another --host (MANYICL_HOST)") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(
                f"port {address.port} is taken; stop what listens there, or give another --port"
            ) from None
        raise CannotStart(
            f"this machine does not let anybody listen on {address.host}:{address.port} ({error.strerror}); give "
            "another --host or --port"
        ) from None


class ServiceRun:
    """One run of the service, from start to stop."""

    def __init__(self, folder: Path, address: Address, console: Console) -> None:
        self._folder = folder
        self._address = address
        self._console = console
        self._services = Services(self._say)
        self._stopping = False
        self._logs = folder / "logs"
        self._postgres = EmbeddedPostgres(folder / "postgres")
        self._valkey = EmbeddedValkey.make(folder / "valkey")
        self._engine = Address(LOOPBACK, free_port())

    def run(self) -> None:
        """Start, watch, stop."""
        for signal_ in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signal_, self._stop)
        self._logs.mkdir(exist_ok=True)
        self._tell_ignored()
        # What a killed run left behind there is of no use to anybody.
        shutil.rmtree(self._folder / "work", ignore_errors=True)
        (self._folder / "work").mkdir()
        try:
            self._start()
            while not self._stopping:
                self._services.restart_dead()
                time.sleep(0.2)
        finally:
            self._say("stopping")
            self._services.stop_all()
            self._postgres.tidy()
            self._say("stopped")

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _tell_ignored(self) -> None:
        """Settings that are given and have no effect."""
        names = [f"MANYICL_{name.upper()}" for name in _OWN]
        if given := [name for name in names if os.environ.get(name)]:
            self._say(
                f"{', '.join(given)} ignored: `manyicl up` starts servers of its own under {self._folder}; to use "
                "others, start the processes alone (`manyicl --help`)"
            )

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def _start(self) -> None:
        # Before the servers: it can take a minute, and they would idle.
        ready_base_model(True, self._say)
        self._use_settings()
        self._postgres.prepare()
        postgres = Service(
            "postgres", lambda: self._postgres.start(self._logs / "postgres.log"), self._postgres.answers, signal.SIGINT
        )
        valkey = Service("valkey", lambda: self._valkey.start(self._logs / "valkey.log"), self._valkey.answers)
        for service, seconds in ((postgres, 60), (valkey, 30)):
            self._services.start(service)
            self._await(service, seconds)
        migrate(self._postgres.url)
        hold_files()
        with transaction() as session:
            forget_workers(session)
        key = self._api_key()

        engine = Service("engine", lambda: self._spawn("engine"), lambda: _healthy(self._engine.url), grace_seconds=3)
        api = Service("api", lambda: self._spawn("api"), lambda: _healthy(self._address.url))
        worker = Service("worker", lambda: self._spawn("worker"), lambda: _worker_lives(JOBS_QUEUE))
        hosting = Service("hosting", lambda: self._spawn("hosting"), lambda: _worker_lives(HOSTING_QUEUE))
        for service in (engine, api, worker, hosting):
            self._services.start(service)
        for service in (engine, api, worker, hosting):
            self._await(service, 180)
        if not self._stopping:
            self._tell(key)

    def _await(self, service: Service, seconds: float) -> None:
        self._services.await_ready(service, seconds, lambda: self._stopping)
        if not self._stopping:
            self._say(f"{service.name} is ready")

    def _use_settings(self) -> None:
        """The children read these from the environment, and so does this process."""
        os.environ |= {
            "MANYICL_DATABASE_URL": self._postgres.url,
            "MANYICL_BROKER_URL": self._valkey.url,
            "MANYICL_STORAGE_URL": (self._folder / "artifacts").as_uri(),
            "MANYICL_ENGINE_URL": self._engine.url,
            "MANYICL_ENGINE_PORT": str(self._engine.port),
            "MANYICL_SECRET_KEY": _kept_secret(self._folder / "secret_key"),
            "MANYICL_HOST": self._address.host,
            "MANYICL_PORT": str(self._address.port),
            "MANYICL_WORK_FOLDER": str(get_settings().work_folder or self._folder / "work"),
            "MANYICL_PREFIX_FOLDER": str(get_settings().prefix_folder or self._folder / "prefixes"),
        }
        get_settings.cache_clear()

    def _spawn(self, command: str) -> subprocess.Popen[str]:
        with (self._logs / f"{command}.log").open("a", encoding="utf-8") as output:
            arguments = [sys.executable, "-m", "manyicl_core.cli.main", command]
            # The engine asks nobody for a key: only this machine reaches it.
            host = self._engine.host if command == "engine" else self._address.host
            return spawn(arguments, os.environ | {"MANYICL_HOST": host}, output, output)

    def _api_key(self) -> str:
        """The key of an earlier start, if it still opens everything, or a new one."""
        try:
            key = json.loads((self._folder / "connection.json").read_text(encoding="utf-8"))["api_key"]
            with transaction() as session:
                if authenticate(session, key).scopes.issuperset(SCOPES):
                    assert isinstance(key, str)
                    return key
        except (OSError, ValueError, KeyError, Unauthorized, SQLAlchemyError):
            pass  # an earlier start did not come so far, or its key holds no longer
        with transaction() as session:
            return create_key(session, get_or_create_project(session, "default"), SCOPES)

    def _tell(self, key: str) -> None:
        base_url = f"{self._address.url}/v1"
        path = self._folder / "connection.json"
        _write_private(path, json.dumps({"base_url": base_url, "api_key": key}, indent=2) + "\n")
        self._say(f"\nManyICL serves {base_url}")
        if others := self._address.others_url:
            self._say(f"Other machines may reach it as {others}/v1, without TLS: put a proxy before it on a network.")
        self._say(f"API key: {key}")
        self._say(f"Both are in {path}. Logs are in {self._logs}. Ctrl-C stops everything.")


def _kept_secret(path: Path) -> str:
    if not path.exists():
        _write_private(path, secrets.token_urlsafe(32))
    return path.read_text(encoding="utf-8")


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    temporary.rename(path)


def _healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=2).is_success
    except httpx2.HTTPError:
        return False


def _worker_lives(queue: str) -> bool:
    try:
        with reading() as session:
            return living_places(session, queue) > 0
    except SQLAlchemyError:
        return False
