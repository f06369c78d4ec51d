from typing import Any

import openai
import pytest
from openai import OpenAI

from manyicl_core.store.projects.service import create_key, get_or_create_project
from manyicl_core.store.session import transaction
from tests.evaluations import cancel_evaluation, create_evaluation, get_evaluation, list_events, predictions
from tests.jobs import TASKS, create_job, example_lines, upload
from tests.services import BASE_MODEL


def files(client: OpenAI) -> dict[str, Any]:
    return {
        "training_file": upload(client, example_lines(0, 12)),
        "validation_file": upload(client, example_lines(100, 4)),
        "task_definitions": TASKS,
    }


def test_a_created_evaluation_tells_what_it_will_measure_and_waits(client: OpenAI) -> None:
    created = create_evaluation(client, model=BASE_MODEL, shots=[4, 0, 4], queries=3, seed=5, **files(client))
    assert created["id"].startswith("eval-")
    assert (created["object"], created["status"], created["seed"]) == ("evaluation", "queued", 5)
    assert (created["models"], created["tasks"]) == ([BASE_MODEL], ["colour", "sum", "parity"])
    assert created["progress"] == {"done": 0, "total": 6}
    assert created["results"] == created["comparisons"] == created["result_files"] == []
    assert (created["job"], created["error"], created["finished_at"]) == (None, None, None)
    assert get_evaluation(client, created["id"]) == created
    assert predictions(client, created["id"]) == []
    first = list_events(client, created["id"])[-1]
    assert first["message"].split(":")[0] == f"Created evaluation {created['id']}"


def test_curves_and_forgetting_are_measurements_of_their_own(client: OpenAI) -> None:
    created = create_evaluation(
        client, model=BASE_MODEL, shots=[0], tasks=["sum"], curve_shots=3, forgetting=True, **files(client)
    )
    assert created["tasks"] == ["sum"]
    assert created["progress"]["total"] == 3
    assert created["forgetting_report"] == []


def test_evaluations_of_held_out_tasks_alone_are_allowed(client: OpenAI) -> None:
    body = files(client) | {"task_definitions": [{**task, "role": "heldout"} for task in TASKS]}
    assert create_evaluation(client, model=BASE_MODEL, **body)["status"] == "queued"


def test_evaluations_are_listed_newest_first_in_pages(client: OpenAI) -> None:
    body = files(client)
    made = [create_evaluation(client, model=BASE_MODEL, **body)["id"] for _ in range(3)]
    first: Any = client.get("/evaluations?limit=2", cast_to=object)
    assert [row["id"] for row in first["data"]] == made[:0:-1]
    assert first["has_more"]
    second: Any = client.get(f"/evaluations?limit=2&after={first['last_id']}", cast_to=object)
    assert [row["id"] for row in second["data"]] == made[:1]
    assert not second["has_more"]


def test_a_waiting_evaluation_is_cancelled_at_once_and_cancelling_twice_is_harmless(client: OpenAI) -> None:
    evaluation_id = create_evaluation(client, model=BASE_MODEL, **files(client))["id"]
    cancelled = cancel_evaluation(client, evaluation_id)
    assert cancelled["status"] == "cancelled"
    assert cancelled["finished_at"] is not None
    assert cancel_evaluation(client, evaluation_id)["status"] == "cancelled"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"models": [BASE_MODEL]}, "model"),
        ({"model": "gpt-99"}, "model"),
        ({"model": None, "models": [BASE_MODEL, "gpt-99"]}, "models.1"),
        ({"model": None, "models": [BASE_MODEL, BASE_MODEL]}, "models.1"),
        ({"shots": [-1]}, "shots.0"),
        ({"shots": []}, "shots"),
        ({"queries": 0}, "queries"),
        ({"draws": True}, "draws"),
        ({"curve_shots": -1}, "curve_shots"),
        ({"forgetting": "yes"}, "forgetting"),
        ({"speed": 9}, "speed"),
        ({"tasks": ["sum", "unheard"]}, "tasks.1"),
        ({"tasks": []}, "tasks"),
        ({"training_file": None}, "training_file"),
        ({"validation_file": None}, "validation_file"),
        ({"validation_file": "file-missing"}, "validation_file"),
        ({"training_file": None, "validation_file": None}, "task_definitions"),
        ({"training_file": None, "validation_file": None, "task_definitions": []}, "training_file"),
        ({"task_definitions": [{"name": "a", "metric": "luck"}]}, "task_definitions.0.metric"),
    ],
)
def test_a_wrong_field_is_named(client: OpenAI, change: dict[str, Any], param: str) -> None:
    body = {"model": BASE_MODEL, **files(client), **change}
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
        create_evaluation(client, **body)
    assert refused.value.param == param
    listed: Any = client.get("/evaluations", cast_to=object)
    assert listed["data"] == []


def test_a_wrong_line_is_named(client: OpenAI) -> None:
    body = files(client) | {
        "validation_file": upload(client, [{"task": "colour", "input": "a new thing", "output": "green"}])
    }
    with pytest.raises(openai.BadRequestError, match="line 1 of the validation file: 'green' is not a label"):
        create_evaluation(client, model=BASE_MODEL, **body)


def test_a_task_without_queries_is_refused_by_name_and_left_out_otherwise(client: OpenAI) -> None:
    queries = [line for line in example_lines(100, 4) if line["task"] == "sum"]
    body = files(client) | {"validation_file": upload(client, queries)}
    assert create_evaluation(client, model=BASE_MODEL, **body)["tasks"] == ["sum"]
    with pytest.raises(openai.BadRequestError, match="'colour' has no queries") as refused:
        create_evaluation(client, model=BASE_MODEL, tasks=["colour"], **body)
    assert refused.value.param == "tasks.0"


def test_a_project_sees_no_evaluation_of_another(client: OpenAI, installation: str) -> None:
    evaluation_id = create_evaluation(client, model=BASE_MODEL, **files(client))["id"]
    with transaction() as session:
        other_key = create_key(session, get_or_create_project(session, "another-of-evaluations"))
    with OpenAI(base_url=installation, api_key=other_key, max_retries=0) as other:
        listed: Any = other.get("/evaluations", cast_to=object)
        assert listed["data"] == []
        for path in ("", "/events", "/events?stream=true", "/predictions"):
            with pytest.raises(openai.NotFoundError):
                other.get(f"/evaluations/{evaluation_id}{path}", cast_to=object)
        with pytest.raises(openai.NotFoundError):
            cancel_evaluation(other, evaluation_id)


def test_a_job_has_no_evaluation_before_it_is_trained(client: OpenAI) -> None:
    job = create_job(client)
    assert job.model_extra is not None
    told = job.model_extra["manyicl"]
    assert (told["evaluation"], told["results"], told["forgetting"]) == (None, [], [])
