import subprocess
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from openai import OpenAI

from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Evaluation
from tests.api.test_evaluations import files
from tests.evaluations import await_evaluation, create_evaluation, get_evaluation, list_events, predictions
from tests.faults.test_sigkill import kill_worker
from tests.services import BASE_MODEL, wait_for

StartWorker = Callable[[], subprocess.Popen[str]]

MEASURED = {"model": BASE_MODEL, "shots": [0, 1, 2, 4], "draws": 10, "seed": 3, "curve_shots": 2, "forgetting": True}


def kill_process(worker: subprocess.Popen[str]) -> None:
    """SIGKILL the evaluation process alone."""
    for process in psutil.Process(worker.pid).children(recursive=True):
        if "manyicl_core.evaluation" in process.cmdline():
            process.kill()


def measured(evaluation: dict[str, Any]) -> dict[str, Any]:
    """What an evaluation found, without the times."""
    results = [{key: value for key, value in row.items() if "seconds" not in key} for row in evaluation["results"]]
    return {"results": results, **{key: evaluation[key] for key in ("means", "curves", "plain_text")}}


@pytest.mark.parametrize("kill", [kill_worker, kill_process])
def test_a_killed_evaluation_goes_on_and_finds_what_an_undisturbed_one_finds(
    client: OpenAI, start_worker: StartWorker, kill: Callable[[subprocess.Popen[str]], None]
) -> None:
    worker = start_worker()
    body = MEASURED | files(client)
    undisturbed = create_evaluation(client, **body)
    expected = await_evaluation(client, undisturbed["id"], "succeeded", "failed")
    assert expected["status"] == "succeeded", expected["error"]

    disturbed = create_evaluation(client, **body)["id"]
    wait_for(lambda: get_evaluation(client, disturbed)["progress"]["done"] >= 2, "two results")
    kill(worker)
    before = get_evaluation(client, disturbed)
    assert before["status"] == "running"
    assert before["progress"]["done"] < before["progress"]["total"]
    if worker.poll() is not None:
        start_worker()
    done = await_evaluation(client, disturbed, "succeeded", "failed")
    assert done["status"] == "succeeded", done["error"]

    with transaction() as session:
        assert session.get_one(Evaluation, disturbed).fence > 1, "the evaluation was not taken up again"
    assert measured(done) == measured(expected)
    assert predictions(client, disturbed) == predictions(client, undisturbed["id"])
    told = [event["message"] for event in list_events(client, disturbed) if event["message"].startswith("Evaluated")]
    assert len(told) == len(set(told)) == len(done["results"]) + len(done["curves"])
    kept = {(row["model"], row["task"], row["k"]): row["seconds"] for row in before["results"]}
    assert kept.items() <= {(row["model"], row["task"], row["k"]): row["seconds"] for row in done["results"]}.items()
