import json
import subprocess
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI
from sqlalchemy import update

from manyicl_core.evaluation.metrics import score
from manyicl_core.store.evaluations import recorder
from manyicl_core.store.fair_queue import waiting_work
from manyicl_core.store.leases import LeaseLost, claim_work
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Evaluation
from tests.api.test_evaluations import files
from tests.evaluations import (
    await_evaluation,
    cancel_evaluation,
    create_evaluation,
    get_evaluation,
    list_events,
    predictions,
)
from tests.jobs import await_state, create_job
from tests.services import BASE_MODEL, wait_for
from tests.streams import follow

StartWorker = Callable[[], subprocess.Popen[str]]


def test_a_job_ends_with_an_evaluation_and_its_model_is_evaluated_again(
    client: OpenAI, start_worker: StartWorker, installation: str, api_key: str
) -> None:
    start_worker()
    job = await_state(client, create_job(client).id, "succeeded", "failed")
    assert job.status == "succeeded", job.error
    assert job.model_extra is not None and job.fine_tuned_model is not None
    told = job.model_extra["manyicl"]
    own = get_evaluation(client, told["evaluation"])
    check_evaluation_of_a_job(client, own, job.id, job.fine_tuned_model)

    # The job's rows are the evaluation's: base beside tuned, with intervals and the paired difference.
    values = {(row["model"], row["task"], row["k"]): row for row in own["results"]}
    for row in told["results"]:
        base, tuned = (values[model, row["task"], row["k"]] for model in (BASE_MODEL, job.fine_tuned_model))
        assert (row["base"], row["tuned"]) == (base["value"], tuned["value"])
        assert row["base_interval"] == [base["low"], base["high"]]
        low, high = row["difference_interval"]
        assert low <= row["difference"] <= high
        assert row["difference"] == pytest.approx(row["tuned"] - row["base"])
    check_evidence(client, own, job.id, told)
    [forgotten] = told["forgetting"]
    assert forgotten == own["forgetting_report"][0]
    text = forgotten["plain_text"]
    assert text["difference"] == pytest.approx(text["after"] - text["before"])
    assert {(row["task"], row["k"]) for row in forgotten["heldout"]} == {
        (t, k) for t in ("parity", None) for k in (0, 2)
    }

    # The same measurement on request gives the same figures; two draws and curves give more.
    again = create_evaluation(
        client,
        models=[BASE_MODEL, job.fine_tuned_model],
        tasks=["sum", "parity"],
        shots=[2, 0, 20],
        queries=3,
        seed=job.seed,
        curve_shots=2,
    )
    followed = list(follow(f"{installation}/evaluations/{again['id']}/events?stream=true", api_key))
    done = get_evaluation(client, again["id"])
    assert done["status"] == "succeeded", done["error"]
    assert done["tasks"] == ["sum", "parity"]
    measured = {(row["model"], row["task"], row["k"]): row["value"] for row in done["results"] if row["k"] < 20}
    assert measured == {key: row["value"] for key, row in values.items() if key[1] != "colour"}
    assert {(row["model"], row["task"]) for row in done["curves"]} == {
        (model, task) for model in done["models"] for task in done["tasks"]
    }
    assert all(len(row["exact_match"]) == len(row["answers"]) == 3 for row in done["curves"])
    assert done["plain_text"] == done["forgetting_report"] == []

    # There are no twenty demonstrations, and who asked is told.
    assert {row["shots"] for row in done["results"] if row["k"] == 20} == {12}
    warned = [event for event in list_events(client, again["id"]) if event["level"] == "warn"]
    warned = [event for event in warned if event["data"].get("code") == "max_shots_not_met"]
    assert len(warned) == 4, "a model and a task each"
    assert all("20 demonstrations were asked for and 12 are shown" in event["message"] for event in warned)

    # The stream told the whole story, in order, and then ended.
    assert followed[-1] == ("done", None, {})
    assert [data["id"] for _, _, data in followed[:-1]] == [event["id"] for event in list_events(client, again["id"])][
        ::-1
    ]
    assert [event_id for _, event_id, _ in followed[:-1]] == [data["id"] for _, _, data in followed[:-1]]
    rest = list(follow(f"{installation}/evaluations/{again['id']}/events?stream=true", api_key, str(followed[3][1])))
    assert rest == followed[4:]

    with pytest.raises(openai.ConflictError, match="over"):
        cancel_evaluation(client, again["id"])


def check_evidence(client: OpenAI, own: dict[str, Any], job_id: str, told: dict[str, Any]) -> None:
    """What stands behind every result, and where it is told: in the job, the events and the means."""
    tuned = own["models"][1]
    for row in own["results"]:
        baseline = row["baseline"]
        assert baseline["difference"] == pytest.approx(row["value"] - baseline["value"])
        if baseline["difference"] < 0:
            assert "below_most_frequent_answer" in [warning["code"] for warning in row["warnings"]]
        assert (row["labels"] is None) == (row["confusion"] is None) == (row["task"] == "sum")
        for line, figures in zip((row["confusion"] or {"counts": []})["counts"], row["labels"] or [], strict=True):
            assert sum(line) == figures["support"]
    results = {(row["model"], row["task"], row["k"]): row for row in own["results"]}
    for row in told["results"]:
        theirs, ours = (results[model, row["task"], row["k"]] for model in own["models"])
        assert (row["base_warnings"], row["tuned_warnings"]) == (theirs["warnings"], ours["warnings"])
        assert (row["baseline"], row["baseline_answer"]) == (ours["baseline"]["value"], ours["baseline"]["answer"])
        assert row["tuned_recall"] == (
            {figures["label"]: figures["recall"] for figures in ours["labels"]} if ours["labels"] else None
        )
        assert row["verdict"] in ("better", "worse", "no_difference", "not_above_baseline")
    for mean in own["means"]:
        rows = [row for row in own["results"] if all(row[key] == mean[key] for key in ("model", "role", "k"))]
        assert mean["baseline"] == pytest.approx(sum(row["baseline"]["value"] for row in rows) / len(rows))
        assert mean["tasks_below_baseline"] == sum(row["baseline"]["difference"] < 0 for row in rows)
    assert [(row["model"], row["task"]) for row in own["recommendations"]] == [
        (model, task) for model in own["models"] for task in ("colour", "sum", "parity", None)
    ]
    assert told["recommendations"] == own["recommendations"][4:]

    # Three queries show nothing: there are warnings, and of the tuned model they are events of the job too.
    warned = {(row["task"], row["k"]) for row in own["results"] if row["model"] == tuned and row["warnings"]}
    events = [event for event in list_events(client, own["id"]) if event["level"] == "warn"]
    assert warned == {(event["data"]["task"], event["data"]["k"]) for event in events if "baseline" in event["data"]}
    assert warned and all(event["data"]["model"] == tuned for event in events)
    job_events = client.fine_tuning.jobs.list_events(job_id, limit=100)
    assert {event["message"] for event in events} <= {event.message for event in job_events if event.level == "warn"}


def check_evaluation_of_a_job(client: OpenAI, own: dict[str, Any], job_id: str, tuned: str) -> None:
    """Everything that a finished evaluation tells, and that it fits together."""
    assert (own["status"], own["job"], own["models"]) == ("succeeded", job_id, [BASE_MODEL, tuned])
    points = [(row["model"], row["task"], row["k"]) for row in own["results"]]
    assert points == [
        (model, task, k) for task in ("colour", "sum", "parity") for k in (0, 2) for model in (BASE_MODEL, tuned)
    ]
    assert own["progress"] == {"done": len(points) + 2, "total": len(points) + 2}
    assert [row["model"] for row in own["plain_text"]] == [BASE_MODEL, tuned]
    for row in own["results"]:
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
        assert (row["queries"], row["draws"], row["shots"]) == (3, 1, row["k"])
        assert 0 < row["seconds_per_query"] <= row["seconds"]

    # The predictions are those that were scored.
    items = predictions(client, own["id"])
    assert len(items) == 3 * len(points)
    for row in own["results"]:
        answered = [
            item for item in items if (item["model"], item["task"], item["k"]) == (row["model"], row["task"], row["k"])
        ]
        assert [item["draw"] for item in answered] == [0, 0, 0]
        found = score(
            row["metric"], [item["prediction"] for item in answered], [item["reference"] for item in answered]
        )
        assert row["value"] == pytest.approx(found)
    [file_id] = own["result_files"]
    assert [json.loads(line) for line in client.files.content(file_id).text.splitlines()] == items

    # One comparison a task and k, and one of the mean of each role.
    compared = [(row["role"], row["k"], row["task"], row["tasks"]) for row in own["comparisons"]]
    assert sorted(compared, key=str) == sorted(
        [
            *[("train", k, task, 1) for k in (0, 2) for task in ("colour", "sum")],
            *[("heldout", k, "parity", 1) for k in (0, 2)],
            *[("train", k, None, 2) for k in (0, 2)],
            *[("heldout", k, None, 1) for k in (0, 2)],
        ],
        key=str,
    )
    assert all((row["model"], row["against"]) == (tuned, BASE_MODEL) for row in own["comparisons"])
    assert all(row["low"] <= row["difference"] <= row["high"] and 0 < row["p_value"] <= 1 for row in own["comparisons"])
    values = {(row["model"], row["task"], row["k"]): row["value"] for row in own["results"]}
    for mean in own["means"]:
        tasks = ("colour", "sum") if mean["role"] == "train" else ("parity",)
        assert mean["value"] == pytest.approx(sum(values[mean["model"], t, mean["k"]] for t in tasks) / len(tasks))


def test_a_running_evaluation_is_cancelled_and_its_process_ends(client: OpenAI, start_worker: StartWorker) -> None:
    start_worker()
    created = create_evaluation(client, model=BASE_MODEL, shots=[0, 1, 2, 4, 8], draws=20, **files(client))
    await_evaluation(client, created["id"], "running")
    cancel_evaluation(client, created["id"])
    cancelled = await_evaluation(client, created["id"], "cancelled", "succeeded", "failed")
    assert cancelled["status"] == "cancelled"
    assert (cancelled["comparisons"], cancelled["result_files"]) == ([], [])


def evaluation_of(client: OpenAI, job_id: str) -> str | None:
    """The id of the job's evaluation, once it has begun."""
    told = client.fine_tuning.jobs.retrieve(job_id).model_extra
    assert told is not None
    evaluation_id: str | None = told["manyicl"]["evaluation"]
    return evaluation_id


def test_a_cancelled_job_takes_its_evaluation_along(client: OpenAI, start_worker: StartWorker) -> None:
    start_worker()
    job = create_job(client, n_epochs=1, evaluation={"shots": [0, 1, 2, 4, 8], "draws": 20})
    wait_for(lambda: evaluation_of(client, job.id), "the job's evaluation")
    evaluation_id = evaluation_of(client, job.id)
    assert evaluation_id is not None
    with pytest.raises(openai.ConflictError, match=f"part of the job {job.id}; cancel the job"):
        cancel_evaluation(client, evaluation_id)
    client.fine_tuning.jobs.cancel(job.id)
    assert await_state(client, job.id, "cancelled", "succeeded", "failed").status == "cancelled"
    assert get_evaluation(client, evaluation_id)["status"] == "cancelled"


def test_a_stale_worker_can_write_nothing_for_an_evaluation(client: OpenAI) -> None:
    evaluation_id = create_evaluation(client, model=BASE_MODEL, **files(client))["id"]
    with transaction() as session:
        assert evaluation_id in [row.id for row in waiting_work(session, [Evaluation], 1000)]
        stale = claim_work(session, Evaluation, evaluation_id, 60)
        session.execute(
            update(Evaluation).where(Evaluation.id == evaluation_id).values(lease_expires_at=Evaluation.created_at)
        )
    assert stale is not None
    with transaction() as session:
        fresh = claim_work(session, Evaluation, evaluation_id, 60)
    assert fresh is not None and fresh.fence == stale.fence + 1
    with pytest.raises(LeaseLost), transaction() as session:
        recorder.record_failure(session, stale, "engine_error", "late")
    assert get_evaluation(client, evaluation_id)["status"] == "running"
    with transaction() as session:
        recorder.record_failure(session, fresh, "engine_error", "in time")
    failed = get_evaluation(client, evaluation_id)
    assert (failed["status"], failed["error"]) == ("failed", {"code": "engine_error", "message": "in time"})
