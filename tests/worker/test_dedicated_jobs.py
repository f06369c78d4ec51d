import csv
import io
import subprocess
from collections.abc import Callable

from openai import OpenAI

from tests.jobs import await_state, create_job

StartWorker = Callable[[], subprocess.Popen[str]]


def test_a_dedicated_job_makes_one_model_a_task_and_each_answers(client: OpenAI, start_worker: StartWorker) -> None:
    start_worker()
    created = create_job(client, objective="dedicated", token_budget=1000, n_epochs=None)
    job = await_state(client, created.id, "succeeded", "failed")
    assert job.status == "succeeded", job.error
    assert job.model_extra is not None
    told = job.model_extra["manyicl"]

    # One model a trained task, the first of them the job's own.
    models = told["models"]
    assert set(models) == {"colour", "sum"}
    assert job.fine_tuned_model == models["colour"]
    assert models["sum"] == models["colour"].removesuffix("colour") + "sum"
    listed = {model.id: model for model in client.models.list()}
    assert told["task_models"] == {task: f"{model}:{task}" for task, model in models.items()}
    assert set(told["task_models"].values()) <= set(listed)
    assert set(models.values()) <= set(listed)
    hashes = set()
    for task, model in models.items():
        extra = listed[model].model_extra
        assert extra is not None and extra["task"] == task
        hashes.add(extra["weights_sha256"])
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "thing 1"}], extra_body={"manyicl": {"task": task}}
        )
        assert answer.choices[0].finish_reason is not None
    assert len(hashes) == 2

    # Steps count on over the tasks; every row says which task it belongs to.
    rows = list(csv.DictReader(io.StringIO(client.files.content(job.result_files[0]).text)))
    assert [int(row["step"]) for row in rows] == list(range(1, told["plan"]["steps"] + 1))
    assert [row["task_number"] for row in rows] == sorted(row["task_number"] for row in rows)
    for task, number in (("colour", "1"), ("sum", "2")):
        part = told["plan"]["tasks"][task]
        own = [int(row["step"]) for row in rows if row["task_number"] == number]
        assert own == list(range(part["first_step"] + 1, part["first_step"] + part["steps"] + 1))
        # Half of the budget each, in whole steps.
        assert 500 <= part["tokens"] < 500 + 2 * 128
    assert job.trained_tokens == told["plan"]["tokens"] == sum(int(row["tokens"]) for row in rows)
    assert len(job.result_files) == 3

    # Each task is evaluated with its own adapter; the held-out one has none.
    assert {row["task"] for row in told["results"]} == {"colour", "sum"}

    # A task's checkpoints go with its model, and nobody else's.
    kept = {
        checkpoint.model_extra["manyicl"]["task"]
        for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id)
        if checkpoint.model_extra
    }
    assert kept == {"colour", "sum"}
    client.models.delete(models["colour"])
    left = [checkpoint.fine_tuned_model_checkpoint for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id)]
    assert models["sum"] in left and models["colour"] not in left
