"""`POST /v1/fine_tuning/jobs/plan`: what a job would do, before it is queued."""

import subprocess
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from sqlalchemy import delete, select

from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Measurement, WantedMeasurement, Worker
from tests.jobs import TASKS, await_state, example_lines, upload
from tests.services import BASE_MODEL, wait_for

StartWorker = Callable[[], subprocess.Popen[str]]


def body_of(client: OpenAI, lines: list[dict[str, str]] | None = None, **manyicl: Any) -> dict[str, Any]:
    options = {"tasks": TASKS, "max_sequence_tokens": 128, "n_epochs": 2, **manyicl}
    training = upload(client, example_lines(0, 12) if lines is None else lines)
    return {"model": BASE_MODEL, "training_file": training, "seed": 7, "manyicl": options}


def plan(client: OpenAI, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/fine_tuning/jobs/plan", body=body, cast_to=object)
    assert isinstance(answer, dict)
    return answer


def create(client: OpenAI, body: dict[str, Any]) -> tuple[FineTuningJob, dict[str, Any]]:
    """Run a job; the finished job, and its ``manyicl`` part."""
    created = client.post("/fine_tuning/jobs", body=body, cast_to=FineTuningJob)
    job = await_state(client, created.id, "succeeded", "failed")
    assert job.model_extra is not None
    return job, job.model_extra["manyicl"]


@pytest.mark.parametrize("options", [{}, {"objective": "dedicated", "n_epochs": None, "token_budget": 1000}])
def test_a_plan_is_what_the_job_then_does(client: OpenAI, start_worker: StartWorker, options: dict[str, Any]) -> None:
    start_worker()
    body = body_of(client, **options, lora={"rank": 3})
    planned = plan(client, body)
    job, told = create(client, body)
    for total in ("steps", "tokens", "answers", "target_tokens"):
        assert planned[total] == told["plan"][total]
    assert (planned["seed"], planned["hyperparameters"]) == (7, job.hyperparameters.to_dict())
    assert planned["adapters"] == (2 if options else 1)


@pytest.fixture
def _measured_for_the_first_time(installation: str) -> None:
    with transaction() as session:
        for table in (Measurement, WantedMeasurement, Worker):
            session.execute(delete(table))


@pytest.mark.usefixtures("_measured_for_the_first_time")
def test_a_job_goes_before_a_measurement_which_is_made_when_the_worker_is_idle_again(
    client: OpenAI, start_worker: StartWorker
) -> None:
    body = body_of(client)
    first = plan(client, body)
    assert (first["estimate"], first["ask_again_seconds"]) == (None, 60)
    assert first["no_estimate"].startswith("no worker answers")
    start_worker()
    wait_for(lambda: "a worker measures" in plan(client, body)["no_estimate"], "the worker to measure")
    job, told = create(client, body)
    assert job.status == "succeeded"
    with transaction() as session:
        assert session.scalar(select(Measurement.device)) is None, "the measurement was given up for the job"
    answers: list[dict[str, Any]] = []
    wait_for(lambda: answers.append(plan(client, body)) or answers[-1]["estimate"], "a measurement")
    assert answers[-1]["no_estimate"] is None
    estimate = answers[-1]["estimate"]
    assert (estimate["device"], estimate["threads"]) == ("cpu", 1)
    assert estimate["seconds"] > 0
    # The tiny model is nothing beside the libraries that every trainer loads.
    assert estimate["dtype"] == told["plan"]["dtype"]
    assert estimate["peak_memory_bytes"] == pytest.approx(told["peak_memory_bytes"], rel=0.25)
    again = plan(client, body_of(client, token_budget=5000, n_epochs=None))
    assert again["estimate"]["measured_at"] == estimate["measured_at"]
    near = plan(client, body_of(client, lora={"rank": 33}))
    assert near["estimate"]["note"].startswith("measured with rank 16 instead of 33; ")
    assert near["ask_again_seconds"] is not None


@pytest.mark.usefixtures("_measured_for_the_first_time")
def test_many_plans_ask_for_few_measurements(client: OpenAI) -> None:
    reasons = [plan(client, body_of(client, lora={"rank": rank}))["no_estimate"] for rank in range(1, 65, 5)]
    assert "other measurements of the project come first" in reasons[-1]
    with transaction() as session:
        wanted = [row.lora["rank"] for row in session.scalars(select(WantedMeasurement)) if row.lora]
    assert sorted(wanted) == [1, 8, 16]


def test_a_plan_counts_each_task_and_stores_nothing(client: OpenAI) -> None:
    planned = plan(client, body_of(client, lora={"rank": 3}))
    assert [task["task"] for task in planned["tasks"]] == ["colour", "sum"]
    for total in ("sequences", "tokens", "target_tokens", "answers"):
        assert planned[total] == sum(task[total] for task in planned["tasks"])
    for task in planned["tasks"]:
        assert sum(task["shots"].values()) == task["sequences"]
        assert sum(int(shots) * number for shots, number in task["shots"].items()) == task["answers"]
    assert planned["answers_over_few_shot"] == pytest.approx(planned["answers"] / planned["sequences"], rel=0.2)
    assert (planned["adapters"], planned["exact"], planned["does_not_fit"]) == (1, True, [])
    assert planned["estimate"] is None
    assert planned["no_estimate"]
    assert client.fine_tuning.jobs.list().data == []


@pytest.mark.parametrize(("objective", "supervised"), [("many_icl", "all"), ("few_shot", "last"), ("zero_shot", "all")])
def test_the_shown_sequence_marks_its_answers(client: OpenAI, objective: str, supervised: str) -> None:
    shown = plan(client, body_of(client, objective=objective, lora={"rank": 3}))["sequence"]
    text, answers = shown["text"], shown["answers"]
    assert len(answers) == text.count("Output:")
    for answer in answers:
        assert text[: answer["start"]].endswith("Output:")
        assert text[answer["start"] : answer["end"]].endswith("\n")
    learnt = [answer["supervised"] for answer in answers]
    assert learnt == ([True] * len(answers) if supervised == "all" else [False] * (len(answers) - 1) + [True])
    assert len(shown["documents"]) == (len(answers) if objective == "zero_shot" else 1)


def test_every_line_that_does_not_fit_is_listed_and_the_others_are_planned(client: OpenAI) -> None:
    long = [{"task": "sum", "input": "word " * 400, "output": str(number)} for number in range(12)]
    body = body_of(client, example_lines(0, 12) + long, lora={"rank": 3})
    body["validation_file"] = upload(client, [{"task": "sum", "input": "word " * 4000, "output": "1"}])
    planned = plan(client, body)
    lines = [(misfit["file"], misfit["line"]) for misfit in planned["does_not_fit"]]
    assert lines == [*(("training", 37 + number) for number in range(12)), ("validation", 1)]
    assert all(misfit["tokens"] > misfit["limit"] for misfit in planned["does_not_fit"])
    assert "max_sequence_tokens is 128" in planned["does_not_fit"][0]["message"]
    without = plan(client, body_of(client, lora={"rank": 3}))
    assert (planned["tokens"], planned["tasks"]) == (without["tokens"], without["tasks"])


def test_a_plan_in_which_nothing_fits_says_so(client: OpenAI) -> None:
    lines = [{"task": "sum", "input": "word " * 400, "output": "1"}]
    planned = plan(client, body_of(client, lines, tasks=[]))
    assert (planned["sequences"], planned["tokens"], planned["sequence"]) == (0, 0, None)
    assert [misfit["line"] for misfit in planned["does_not_fit"]] == [1]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": "gpt-99"}, "model"),
        ({"training_file": "file-missing"}, "training_file"),
        ({"manyicl": {"objective": "magic"}}, "manyicl.objective"),
        ({"manyicl": {"lora": {"target_modules": ["nope"]}}}, "manyicl.lora.target_modules"),
    ],
)
def test_a_plan_refuses_what_a_job_refuses(client: OpenAI, change: dict[str, Any], param: str) -> None:
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
        plan(client, body_of(client) | change)
    assert refused.value.param == param
