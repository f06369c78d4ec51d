"""What the compose file gives to whom, as Compose itself reads it. Needs no Docker engine."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from manyicl_core.settings import Settings
from tests.containers.compose import ROOT, SECRETS, filled_example

OURS = ("migrate", "models", "api", "engine", "hosting", "worker")
# Ports and folders inside the containers, and what is a secret, are the compose file's own.
DECIDED = {"database_url", "broker_url", "secret_key", "model_cache", "work_folder", "prefix_folder"}
DECIDED |= {"host", "port", "engine_port", "model_folder"}


def read_compose(folder: Path, settings: str, *files: str) -> subprocess.CompletedProcess[str]:
    package = find_spec("compose")
    assert package is not None and package.origin is not None
    (folder / ".env").write_text(settings, encoding="utf-8")
    named = [part for file in ("docker-compose.yml", *files) for part in ("--file", str(ROOT / file))]
    return subprocess.run(
        [
            str(Path(package.origin).with_name("docker-compose")),
            *("--env-file", str(folder / ".env"), *named, "config", "--format", "json"),
        ],
        cwd=ROOT,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )


def services(folder: Path, *files: str, **changes: str) -> dict[str, Any]:
    done = read_compose(folder, filled_example(changes), *files)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def test_every_setting_reaches_every_process(tmp_path: Path) -> None:
    names = [f"MANYICL_{name.upper()}" for name in Settings.model_fields if name not in DECIDED]

    found = services(tmp_path, **dict.fromkeys(names, "as-given"))

    for service in OURS:
        missing = [name for name in names if found[service]["environment"].get(name) != "as-given"]
        assert missing == [], f"{service} does not get {missing}"


def test_each_service_gets_its_own_secrets_alone(tmp_path: Path) -> None:
    values = {name: f"secret-of-{number}" for number, name in enumerate(SECRETS)}
    found = services(tmp_path, **values, HF_TOKEN="a-token")

    def seen_by(service: str) -> set[str]:
        text = json.dumps(found[service]["environment"])
        return {name for name, value in values.items() if value in text} | (
            {"HF_TOKEN"} if "a-token" in text else set()
        )

    assert {service: seen_by(service) for service in OURS} == {
        "migrate": {"POSTGRES_PASSWORD"},
        "models": {"HF_TOKEN"},
        "api": set(SECRETS),
        "hosting": set(SECRETS),
        "engine": {"S3_SECRET_KEY"},
        "worker": {"POSTGRES_PASSWORD", "VALKEY_PASSWORD", "S3_SECRET_KEY"},
    }


def test_no_argument_holds_a_secret(tmp_path: Path) -> None:
    values = {name: f"secret-of-{number}" for number, name in enumerate(SECRETS)}
    for name, service in services(tmp_path, **values).items():
        arguments = json.dumps([service.get(part) for part in ("command", "entrypoint", "healthcheck")])
        assert not any(value in arguments for value in values.values()), name


def test_the_example_is_refused_until_it_is_filled_in(tmp_path: Path) -> None:
    example = (ROOT / "docker" / "env.example").read_text(encoding="utf-8")

    done = read_compose(tmp_path, example)

    assert done.returncode != 0
    assert any(name in done.stderr for name in SECRETS) and "set it in .env" in done.stderr


@pytest.mark.parametrize("name", ["MANYICL_SECRET_KEY", "MANYICL_DATABASE_URL", "MANYICL_BROKER_URL"])
def test_a_secret_out_of_an_example_is_refused_by_every_process(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "manyicl_core.cli.main", "migrate"],
        env={name: "redis://:change-me@valkey"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert name in done.stderr and "change-me" in done.stderr and "openssl rand" in done.stderr
    assert "Traceback" not in done.stderr


def test_cpu_and_gpu_are_the_same_services_with_other_devices(tmp_path: Path) -> None:
    cpu, gpu = (services(tmp_path, COMPOSE_PROFILES=device) for device in ("cpu", "gpu"))

    assert set(cpu) == set(gpu)
    for service in ("engine", "worker"):
        assert "deploy" not in cpu[service]
        devices = gpu[service]["deploy"]["resources"]["reservations"]["devices"]
        assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    assert {cpu[service]["image"] for service in OURS} == {"manyicl:cpu"}
    assert {gpu[service]["image"] for service in OURS} == {"manyicl:gpu"}
    assert gpu["migrate"]["build"]["args"]["DEVICE"] == "gpu"


def test_logs_rotate_and_memory_can_be_bounded(tmp_path: Path) -> None:
    bounds = {
        f"{name}_MEMORY": "3g" for name in ("POSTGRES", "VALKEY", "STORAGE", "API", "HOSTING", "ENGINE", "WORKER")
    }
    for name, service in services(tmp_path, **bounds).items():
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        assert name in ("migrate", "models") or service["mem_limit"] == str(3 << 30), name


def test_behind_the_proxy_the_api_has_no_port_of_its_own(tmp_path: Path) -> None:
    found = services(tmp_path, "docker/proxy.yml", MANYICL_DOMAIN="localhost")

    assert "ports" not in found["api"]
    assert {port["published"] for port in found["proxy"]["ports"]} == {"80", "443"}


def test_a_folder_with_a_model_is_mounted_where_its_setting_says(tmp_path: Path) -> None:
    given = services(tmp_path, MANYICL_MODEL_FOLDER="/srv/model")
    without = services(tmp_path)

    for service in OURS:
        mount = next(volume for volume in given[service]["volumes"] if volume["target"] == "/model")
        assert (mount["type"], mount["source"]) == ("bind", "/srv/model"), service
        assert given[service]["environment"]["MANYICL_MODEL_FOLDER"] == "/model"
        assert without[service]["environment"]["MANYICL_MODEL_FOLDER"] == ""
