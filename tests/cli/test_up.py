"""`manyicl up` as a user runs it: a process, a folder, signals."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest
from openai import OpenAI

from manyicl_core.embedded import EmbeddedPostgres, free_port
from tests.architectures import ARCHITECTURES, make_model
from tests.jobs import await_state, create_job
from tests.services import BASE_MODEL, wait_for

COMMAND = [sys.executable, "-m", "manyicl_core.cli.main", "up"]
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104


class Up:
    """One `manyicl up`; its name has a space on purpose."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.data = folder / "my data"
        self.port = free_port()
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("MANYICL_")} | {
            "MANYICL_BASE_MODEL": BASE_MODEL,
            "MANYICL_MODEL_FOLDER": str(model),
            "MANYICL_THREADS": "1",
            "MANYICL_JOB_NICE": "0",  # other tests compute beside it
            "MANYICL_LEASE_SECONDS": "3",
            "MANYICL_DISPATCH_SECONDS": "0.2",
            # The api is for other machines, too; what has no effect is told.
            "MANYICL_HOST": ALL_ADDRESSES,
            "MANYICL_SECRET_KEY": "of another installation",
        }
        self.log: IO[str] = (folder / "up.log").open("a+", encoding="utf-8")
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it says that it serves."""
        self.log.truncate(0)
        command = [*COMMAND, "--data-dir", str(self.data), "--port", str(self.port)]
        self.process = subprocess.Popen(command, env=self.environment, stdout=self.log, stderr=self.log, text=True)
        wait_for(lambda: "Ctrl-C stops everything" in self.said() or self.process.poll() is not None, "manyicl up")
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        """What it has printed since its start."""
        return Path(self.log.name).read_text(encoding="utf-8")

    def family(self) -> list[psutil.Process]:
        """All its descendants."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, mark: str) -> psutil.Process:
        """The child of `manyicl up` itself whose command has ``mark``."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        # as_dict: a child that has just died has no command, and that is no error.
        commands = [(child, child.as_dict(["cmdline"])["cmdline"] or []) for child in children]
        return next(child for child, command in commands if any(mark in word for word in command))

    def end(self, signal_: signal.Signals) -> None:
        """Send a signal and see that nothing is left."""
        assert self.process is not None
        family = self.family()
        self.process.send_signal(signal_)
        self.process.wait(60)
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive

    def refused(self, *arguments: str, **environment: str) -> str:
        """Another start, which must fail; gives the one line that it says."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        return line

    def client(self) -> OpenAI:
        """A client with what connection.json says."""
        return OpenAI(**json.loads((self.data / "connection.json").read_text(encoding="utf-8")), max_retries=5)


@pytest.fixture
def up(own_folder: Path, tiny_model: Path) -> Iterator[Up]:
    service = Up(own_folder, tiny_model)
    yield service
    if service.process is not None and service.process.poll() is None:
        service.end(signal.SIGTERM)
    EmbeddedPostgres(service.data / "postgres").tidy()
    service.log.close()


def test_up_serves_restarts_its_children_and_keeps_its_data(up: Up) -> None:
    up.start()
    connection = up.data / "connection.json"
    assert stat.S_IMODE(connection.stat().st_mode) == 0o600
    known = json.loads(connection.read_text(encoding="utf-8"))
    assert up.said().count(known["api_key"]) == 1
    assert known["base_url"] == f"http://127.0.0.1:{up.port}/v1"
    assert f"http://{socket.gethostname()}:{up.port}/v1" in up.said()
    assert "MANYICL_SECRET_KEY ignored" in up.said()
    listening = {
        (name, where.laddr.ip)
        for name in ("api.serve", "manyicl_core.inference")
        for where in up.child(name).net_connections()
        if where.status == psutil.CONN_LISTEN
    }
    assert listening == {("api.serve", ALL_ADDRESSES), ("manyicl_core.inference", "127.0.0.1")}

    with up.client() as client:
        job = await_state(client, create_job(client, evaluate=False).id, "succeeded", "failed")
        assert job.status == "succeeded", job.error

        assert "another `manyicl up` runs" in up.refused("--data-dir", str(up.data), "--port", str(free_port()))
        other = str(up.data.parent / "other")
        assert f"port {up.port} is taken" in up.refused("--data-dir", other, "--port", str(up.port))

        for mark in ("api.serve", "manyicl_core.inference", "worker.celery_app", "worker.hosting_app"):
            up.child(mark).kill()
        wait_for(lambda: up.said().count("starting it again") == 4, "four restarts")
        messages = [{"role": "user", "content": "Hello"}]
        wait_for(lambda: _answers(client, str(job.fine_tuned_model), messages), "the engine to answer again")

    up.end(signal.SIGINT)
    assert up.said().rstrip().endswith("stopped")

    up.start()
    with up.client() as client:
        assert client.fine_tuning.jobs.retrieve(job.id).status == "succeeded"
    assert up.process is not None
    family = up.family()
    up.process.kill()  # not even a chance to clean up: the kernel ends the children
    up.process.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    up.start()
    with up.client() as client:
        assert client.fine_tuning.jobs.retrieve(job.id).status == "succeeded"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_one_clear_line(up: Up, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("this machine does not allow mounts")
    try:
        assert "MB are needed; free some space" in up.refused("--data-dir", str(small), "--port", str(up.port))
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("command", ["api", "worker", "hosting", "engine", "migrate"])
def test_a_process_alone_says_which_setting_it_misses(up: Up, command: str) -> None:
    done = subprocess.run(
        [*COMMAND[:-1], command], env=up.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("manyicl: MANYICL_")
    assert "is not set" in line


def _answers(client: OpenAI, model: str, messages: object) -> bool:
    try:
        client.chat.completions.create(model=model, messages=messages, max_tokens=1)  # type: ignore[call-overload]
    except Exception:
        return False
    return True


def test_a_port_that_is_free_again_can_be_taken(up: Up) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", up.port))  # a part of all addresses
        listener.listen()
        assert "is taken" in up.refused("--data-dir", str(up.data), "--port", str(up.port))


def test_a_base_model_that_is_not_there_or_not_computed_right_is_one_clear_line(up: Up, tmp_path: Path) -> None:
    start = ("--data-dir", str(up.data), "--port", str(up.port))
    nowhere = tmp_path / "mistyped"
    assert f"MANYICL_MODEL_FOLDER is {nowhere}, which is no folder" in up.refused(
        *start, MANYICL_MODEL_FOLDER=str(nowhere)
    )
    nowhere.mkdir()
    assert "holds no model" in up.refused(*start, MANYICL_MODEL_FOLDER=str(nowhere))

    granite = make_model(ARCHITECTURES["granite"], tmp_path / "granite")
    cache = {"MANYICL_MODEL_FOLDER": str(granite), "MANYICL_MODEL_CACHE": str(tmp_path / "cache")}
    line = up.refused(*start, **cache)
    assert line.startswith(f"manyicl: {BASE_MODEL} (granite) cannot be used: its logits are scaled (logits_scaling)")
    assert len(list((tmp_path / "cache" / "checks").iterdir())) == 1
    for command in (["models", "check"], ["models", "pull"]):
        done = subprocess.run(
            [*COMMAND[:-1], *command], env=up.environment | cache, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr.strip()) == (1, line)
        assert "checking that" not in done.stdout
    assert list(nowhere.iterdir()) == []


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_ours_is_one_clear_line(up: Up, host: str) -> None:
    line = up.refused("--data-dir", str(up.data), "--port", str(up.port), MANYICL_HOST=host)
    assert host in line
    assert "--host" in line
