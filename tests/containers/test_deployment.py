"""The deployment as a user has it: built, used, killed, stopped and started, backed up and restored.

``make containers`` runs it, in order, on a machine with Docker; without one it is skipped. It takes
minutes and prints its figures at the end.
"""

import io
import json
import os
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from examples.demo import upload_tasks
from manyicl_core.embedded import free_port
from tests.containers.compose import Deployment
from tests.services import wait_for

pytestmark = [
    pytest.mark.skipif("MANYICL_TEST_CONTAINERS" not in os.environ, reason="`make containers` runs these"),
    pytest.mark.timeout(3600),
]

TOKENS = 8_000
PLANNED_STOPS = int(os.environ.get("MANYICL_TEST_PLANNED_STOPS", "20"))
LONG_TOKENS = 2_000 * (PLANNED_STOPS + 4)  # a step or so between two stops
LARGEST_CPU_IMAGE = 1_800_000_000
LONG_LIVED = ("postgres", "valkey", "storage", "engine", "hosting", "worker", "api")
QUESTION: list[ChatCompletionUserMessageParam] = [
    {"role": "user", "content": "The parcel arrived, but the lamp inside is broken."}
]

Figures = Callable[[str, object], None]


@pytest.fixture(scope="module")
def figure(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """Collect what was measured, and print it when all is over."""
    told: list[str] = []
    yield lambda name, value: told.append(f"{name}: {value}")
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("", *told, sep="\n  ", flush=True)  # noqa: T201 - the figures are what it is run for


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = Deployment("manyicl-test", tmp_path_factory.mktemp("deployment"), free_port())
    made.compose("down", "--volumes", "--remove-orphans")
    yield made
    made.compose("down", "--volumes", "--remove-orphans")


class State:
    """What earlier tests left behind for later ones."""

    client: OpenAI
    files: tuple[list[dict[str, Any]], str, str]
    job: str
    model: str
    answer: str
    adapter: str
    batch: str


def ask(client: OpenAI, model: str) -> str:
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, extra_body={"manyicl": {"task": "support_triage"}}, max_tokens=16
    )
    return str(answer.choices[0].message.content)


def create_job(client: OpenAI, tokens: int, suffix: str) -> str:
    definitions, training, validation = State.files
    return client.fine_tuning.jobs.create(
        model=client.models.list().data[0].id,
        training_file=training,
        validation_file=validation,
        suffix=suffix,
        seed=1,
        method={"type": "supervised", "supervised": {"hyperparameters": {"batch_size": 1}}},
        extra_body={
            "manyicl": {
                "max_sequence_tokens": 1024,
                "token_budget": tokens,
                "tasks": definitions,
                "evaluation": {"shots": [0, 4], "queries": 3, "draws": 1},
            }
        },
    ).id


def wait_for_job(client: OpenAI, job: str) -> None:
    ended = {"succeeded", "failed", "cancelled"}
    wait_for(lambda: client.fine_tuning.jobs.retrieve(job).status in ended, "the job", 1800)
    done = client.fine_tuning.jobs.retrieve(job)
    assert done.status == "succeeded", done.error


def everything_is_there(client: OpenAI) -> None:
    job = client.fine_tuning.jobs.retrieve(State.job)
    assert (job.status, job.fine_tuned_model) == ("succeeded", State.model)
    assert ask(client, State.model) == State.answer
    assert zipfile.ZipFile(io.BytesIO(client.files.content(State.adapter).read())).testzip() is None
    output = client.batches.retrieve(State.batch).output_file_id
    assert output is not None and len(client.files.content(output).text.splitlines()) == 3


def test_it_is_built(deployment: Deployment, figure: Figures) -> None:
    started = time.monotonic()
    deployment.compose("build")
    figure("build", f"{time.monotonic() - started:.0f} s")
    size = int(deployment.docker("image", "inspect", deployment.image, "--format", "{{.Size}}"))
    figure("image", f"{deployment.image}, {size / 1e9:.2f} GB")
    assert "gpu" in deployment.image or size < LARGEST_CPU_IMAGE


def test_it_starts(deployment: Deployment, figure: Figures) -> None:
    started = time.monotonic()
    done = deployment.compose("up", "--detach", "--wait")
    figure("up", f"{time.monotonic() - started:.0f} s")
    assert "Pulling" not in "\n".join(line for line in done.stderr.splitlines() if "manyicl-test" in line)
    started = time.monotonic()
    deployment.compose("up", "--detach", "--wait")
    figure("up, when all is there", f"{time.monotonic() - started:.0f} s")


def test_a_key_is_made(deployment: Deployment) -> None:
    key = deployment.compose("exec", "-T", "api", "manyicl", "keys", "bootstrap").stdout.split()[-1]
    State.client = OpenAI(base_url=f"http://127.0.0.1:{deployment.port}/v1", api_key=key, max_retries=0)
    assert State.client.models.list().data


def test_a_job_trains_and_its_model_answers(deployment: Deployment, figure: Figures) -> None:
    client = State.client
    State.files = upload_tasks(client)
    started = time.monotonic()
    State.job = create_job(client, TOKENS, "containers")
    wait_for_job(client, State.job)
    figure(f"job of {TOKENS} tokens", f"{time.monotonic() - started:.0f} s")
    job = client.fine_tuning.jobs.retrieve(State.job)
    State.model = str(job.fine_tuned_model)
    State.answer = ask(client, State.model)
    labels = next(task["labels"] for task in State.files[0] if task["name"] == "support_triage")
    assert State.answer in labels
    archives = [file for file in job.result_files if client.files.retrieve(file).filename.endswith(".zip")]
    assert len(archives) == 1
    State.adapter = archives[0]
    names = zipfile.ZipFile(io.BytesIO(client.files.content(State.adapter).read())).namelist()
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {Path(name).name for name in names}


def test_a_batch_is_answered(deployment: Deployment) -> None:
    client = State.client
    body = {"model": State.model, "messages": QUESTION, "max_tokens": 8, "manyicl": {"task": "support_triage"}}
    lines = [
        {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body} for number in range(3)
    ]
    file = client.files.create(file=("lines.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
    State.batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    ).id
    wait_for(lambda: client.batches.retrieve(State.batch).status in ("completed", "failed", "expired"), "the batch")
    assert client.batches.retrieve(State.batch).status == "completed"
    everything_is_there(client)


def test_no_secret_is_seen_in_the_list_of_processes(deployment: Deployment) -> None:
    secrets = [
        line.split("=", 1)[1]
        for line in (deployment.folder / ".env").read_text(encoding="utf-8").splitlines()
        if "PASSWORD" in line or "SECRET" in line
    ]
    assert len(secrets) == 4
    for _ in range(10):  # health checks come and go
        shown = "".join(
            deployment.docker("top", container, "-eo", "pid,args")
            for service in LONG_LIVED
            for container in deployment.containers(service)
        )
        assert not any(secret in shown for secret in secrets)


def test_logs_are_lines_of_json(deployment: Deployment) -> None:
    deployment.compose("restart", "worker", "hosting")  # Celery says something when it stops
    for service in ("api", "engine", "hosting", "worker"):
        for line in deployment.compose("logs", "--no-log-prefix", "--no-color", service).stdout.splitlines():
            assert isinstance(json.loads(line), dict), f"{service}: {line}"


@pytest.mark.parametrize("service", LONG_LIVED)
def test_a_killed_container_comes_back(deployment: Deployment, figure: Figures, service: str) -> None:
    (container,) = deployment.containers(service)
    began = deployment.inspect(container)["State"]["StartedAt"]
    started = time.monotonic()
    deployment.kill(container)

    def back() -> bool:
        state = deployment.inspect(container)["State"]
        return bool(state["StartedAt"] != began and state["Health"]["Status"] == "healthy")

    wait_for(back, f"{service} to come back", 300)
    figure(f"{service} killed, healthy again after", f"{time.monotonic() - started:.0f} s")
    wait_for(lambda: answers(State.client), "the service to answer", 120)
    everything_is_there(State.client)


def answers(client: OpenAI) -> bool:
    try:
        return bool(ask(client, State.model))
    except Exception:  # whatever a client gets of a service that is just coming back
        return False


def test_a_job_survives_planned_stops(deployment: Deployment, figure: Figures) -> None:
    client = State.client
    job = create_job(client, LONG_TOKENS, "stopped")
    seconds = []
    for stops in range(PLANNED_STOPS):
        wait_for(partial(has_begun, client, job, stops + 1), f"the job to go on after {stops} stops", 300)
        started = time.monotonic()
        deployment.compose("stop", "worker")
        seconds.append(time.monotonic() - started)
        container = deployment.compose("ps", "--all", "--quiet", "worker").stdout.split()[0]
        assert deployment.inspect(container)["State"]["ExitCode"] == 0
        deployment.compose("start", "worker")
    figure(f"{PLANNED_STOPS} planned stops in one job", f"median {median(seconds):.1f} s, longest {max(seconds):.1f} s")
    wait_for_job(client, job)


def has_begun(client: OpenAI, job: str, times: int) -> bool:
    """Whether a trainer of the job has begun so often; it is over too early if it has ended before."""
    assert client.fine_tuning.jobs.retrieve(job).status in ("queued", "running")
    events = client.fine_tuning.jobs.list_events(job, limit=100)
    return sum(event.message.startswith(("Training starts", "Training goes on")) for event in events) >= times


def test_scratch_does_not_grow(deployment: Deployment) -> None:
    listed = deployment.compose("exec", "-T", "worker", "ls", "/scratch").stdout.split()
    held = [name for name in listed if name.startswith("process-")]
    assert len(held) <= 4, "one each of api, engine, hosting and worker"


def test_down_and_up_keeps_everything(deployment: Deployment, figure: Figures) -> None:
    started = time.monotonic()
    deployment.compose("down")
    deployment.compose("up", "--detach", "--wait")
    figure("down and up", f"{time.monotonic() - started:.0f} s")
    everything_is_there(State.client)


def test_a_wrong_model_is_found_before_anything_is_replaced(deployment: Deployment) -> None:
    deployment.write_settings(MANYICL_BASE_MODEL="nobody/has-this", MANYICL_MODEL_FOLDER="")
    try:
        with pytest.raises(AssertionError, match="nobody/has-this"):
            deployment.follow_page("Upgrade, or another base model")
    finally:
        deployment.write_settings()
    everything_is_there(State.client)


def test_an_upgrade_goes_through(deployment: Deployment, figure: Figures) -> None:
    started = time.monotonic()
    deployment.follow_page("Upgrade, or another base model")
    figure("the commands of an upgrade", f"{time.monotonic() - started:.0f} s")
    everything_is_there(State.client)


def test_a_backup_is_restored_into_an_empty_installation(deployment: Deployment, figure: Figures) -> None:
    deployment.follow_page("Backup")
    deployment.compose("down", "--volumes")
    started = time.monotonic()
    deployment.follow_page("Restore")
    figure("restore", f"{time.monotonic() - started:.0f} s")
    everything_is_there(State.client)


def test_services_can_be_scaled(deployment: Deployment) -> None:
    port = free_port()
    deployment.write_settings(MANYICL_PORT=f"{port}-{port + 1}")
    deployment.compose("up", "--detach", "--wait", "--scale", "api=2", "--scale", "worker=2", "--scale", "hosting=2")
    assert [len(deployment.containers(service)) for service in ("api", "worker", "hosting")] == [2, 2, 2]
    for each in (port, port + 1):
        everything_is_there(State.client.with_options(base_url=f"http://127.0.0.1:{each}/v1"))


def test_it_is_removed_without_a_trace(deployment: Deployment) -> None:
    deployment.compose("down", "--volumes")
    left = subprocess.run(
        ["docker", "volume", "ls", "--quiet", "--filter", "label=com.docker.compose.project=manyicl-test"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert left.stdout == ""
