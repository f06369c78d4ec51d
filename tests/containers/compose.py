"""Docker Compose over a copy of the example's settings, in a project of its own."""

import json
import os
import re
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECRETS = ("POSTGRES_PASSWORD", "VALKEY_PASSWORD", "S3_SECRET_KEY", "MANYICL_SECRET_KEY")
PAGE = ROOT / "docs" / "operations.md"

# What the machine that runs this may need: where torch comes from, a model's files, which build Compose uses.
_FROM_OUTSIDE = ("TORCH_CPU_INDEX", "MANYICL_MODEL_FOLDER", "COMPOSE_PROFILES")


def filled_example(changes: Mapping[str, str]) -> str:
    """Return ``docker/env.example`` with new secrets where it is empty, and ``changes`` made."""
    lines = []
    for line in (ROOT / "docker" / "env.example").read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            lines.append(f"{name}={changes.get(name) or value or secrets.token_hex(12)}")
    known = {line.partition("=")[0] for line in lines}
    lines += [f"{name}={value}" for name, value in changes.items() if name not in known]
    return "\n".join(lines) + "\n"


@dataclass
class Deployment:
    """The service in containers, beside any other on the machine.

    Attributes:
        folder: where its ``.env`` and backups are.
        environment: what every command gets.
    """

    project: str
    folder: Path
    port: int
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.settings = {"MANYICL_PORT": str(self.port), "MANYICL_IMAGE": "manyicl-test"}
        self.settings |= {name: secrets.token_hex(12) for name in SECRETS}
        self.settings |= {name: os.environ[name] for name in _FROM_OUTSIDE if name in os.environ}
        self.write_settings()
        self.environment = {
            # Compose takes a builder of its own; buildx would have to be 0.17 or newer.
            "COMPOSE_BAKE": "false",
            **{name: value for name, value in os.environ.items() if not name.startswith("MANYICL_")},
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_ENV_FILES": str(self.folder / ".env"),
            "COMPOSE_FILE": str(ROOT / "docker-compose.yml"),
        }
        for name in _FROM_OUTSIDE:
            self.environment.pop(name, None)

    def write_settings(self, **changes: str) -> None:
        """Write ``.env`` with ``changes`` to what it was first."""
        (self.folder / ".env").write_text(filled_example(self.settings | changes), encoding="utf-8")

    def compose(self, *arguments: str, check: bool = True, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
        """Run ``docker compose`` and return what it said."""
        return self._run(["docker", "compose", *arguments], check, timeout)

    def docker(self, *arguments: str) -> str:
        """Run ``docker`` and return what it printed."""
        return self._run(["docker", *arguments], check=True, timeout=300).stdout

    def follow_page(self, heading: str) -> None:
        """Run the commands under ``heading`` of the page on operations, as they stand there."""
        section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
        commands = re.search(r"```\n(.*?)```", section, re.DOTALL)
        assert commands is not None, f"{heading!r} has no commands"
        self._run(["bash", "-euo", "pipefail", "-c", commands[1]], check=True, timeout=1800)

    def containers(self, service: str) -> list[str]:
        """Return the ids of the service's containers that run."""
        return self.compose("ps", "--quiet", service).stdout.split()

    def inspect(self, container: str) -> dict[str, Any]:
        """Return what Docker knows of a container."""
        found: dict[str, Any] = json.loads(self.docker("inspect", container))[0]
        return found

    def kill(self, container: str) -> None:
        """SIGKILL the container's first process as the kernel would: ``docker kill`` counts as a planned stop."""
        pid = self.inspect(container)["State"]["Pid"]
        self.docker(
            *("run", "--rm", "--pid=host", "--user=0", "--entrypoint=python", self.image),
            *("-c", f"import os; os.kill({pid}, 9)"),
        )

    @property
    def image(self) -> str:
        """The image's name with its tag."""
        return f"manyicl-test:{self.settings.get('COMPOSE_PROFILES', 'cpu')}"

    def _run(self, command: list[str], check: bool, timeout: float) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done
