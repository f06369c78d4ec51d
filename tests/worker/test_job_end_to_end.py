import csv
import io
import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import openai
import pytest
import torch
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM

from examples.report import print_table, write_report
from examples.watch import watch_job
from tests.jobs import await_state, create_job

StartWorker = Callable[[], subprocess.Popen[str]]


def test_a_job_ends_in_a_model_that_answers(
    client: OpenAI, start_worker: StartWorker, tiny_model: Path, tmp_path: Path
) -> None:
    start_worker()
    # The demo follows the job to its end, and reports.
    console = Console(file=io.StringIO(), width=100)
    seconds: dict[str, float] = {}
    job = watch_job(client, create_job(client).id, console, seconds)
    assert job.status == "succeeded", job.error
    check_demo(client, job, console, seconds, tmp_path / "report.json")
    assert job.model_extra is not None
    told = job.model_extra["manyicl"]

    # Results: every task at every k, base beside tuned.
    results = {(row["task"], row["k"]): row for row in told["results"]}
    assert set(results) == {(task, k) for task in ("colour", "sum", "parity") for k in (0, 2)}
    assert {row["role"] for row in told["results"] if row["task"] == "parity"} == {"heldout"}
    assert all(0 <= row["base"] <= 1 and 0 <= row["tuned"] <= 1 and row["queries"] == 3 for row in results.values())

    # Metrics: a row a step, numbers only.
    rows = list(csv.DictReader(io.StringIO(client.files.content(job.result_files[0]).text)))
    assert [int(row["step"]) for row in rows] == list(range(1, told["plan"]["steps"] + 1))
    assert all(float(value) >= 0 for row in rows for value in row.values() if value)
    assert [row["step"] for row in rows if row["valid_loss"]] == [rows[-1]["step"]]
    assert sum(int(row["tokens"]) for row in rows) == told["plan"]["tokens"] == job.trained_tokens

    text = client.get(f"/fine_tuning/jobs/{job.id}/metrics?format=csv", cast_to=str)
    assert text == client.files.content(job.result_files[0]).text

    # The model's card has the result table.
    card = client.get(f"/models/{job.fine_tuned_model}/artifacts/README.md", cast_to=str)
    assert "| parity | heldout | 2 | accuracy | " in card
    assert "| all tasks | " in card
    for row in told["results"]:
        for warning in row["tuned_warnings"]:
            assert f"- {row['task']}, k={row['k']}: {warning['message']}\n" in card

    # Events: the whole story, the last one first.
    events = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=100)]
    assert events[0] == "Fine-tuning job successfully completed"
    assert sum(message.startswith("Step ") for message in events) == told["plan"]["steps"]

    # The download is plain PEFT.
    with zipfile.ZipFile(io.BytesIO(client.files.content(job.result_files[1]).read())) as archive:
        archive.extractall(tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    tokens = torch.arange(5, 15)[None]
    with torch.inference_mode():
        difference = (tuned(tokens).logits - tuned.get_base_model()(tokens).logits).abs().max()
        with tuned.disable_adapter():
            changed = (tuned(tokens).logits - AutoModelForCausalLM.from_pretrained(tiny_model)(tokens).logits).abs()
    assert difference == 0
    assert changed.max() < 1e-5

    # The model is listed, and answers for its tasks, trained or not.
    assert job.fine_tuned_model is not None
    assert client.models.retrieve(job.fine_tuned_model).id in [model.id for model in client.models.list()]
    for task, labels in (("colour", {"red", "blue"}), ("parity", {"odd", "even"})):
        answer = client.chat.completions.create(
            model=job.fine_tuned_model,
            messages=[{"role": "user", "content": "thing 55"}],
            extra_body={"manyicl": {"task": task, "max_shots": 4}},
        )
        assert answer.choices[0].message.content in labels
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(
            model=job.fine_tuned_model,
            messages=[{"role": "user", "content": "x"}],
            extra_body={"manyicl": {"task": "unheard"}},
        )
    assert refused.value.param == "manyicl.task"
    with pytest.raises(openai.ConflictError, match="over"):
        client.fine_tuning.jobs.cancel(job.id)
    assert client.models.delete(job.fine_tuned_model).deleted
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(job.fine_tuned_model)


def check_demo(client: OpenAI, job: FineTuningJob, console: Console, seconds: dict[str, float], path: Path) -> None:
    """What the demo shows of a job that it has followed, and what it writes to ``path``."""
    print_table(client, job, console)
    write_report(path, job, seconds, client)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Fine-tuning job successfully completed" in shown
    assert all(f"Evaluated {task} " in shown for task in ("colour", "sum", "parity"))
    assert "base→tuned" in shown
    assert "recommended k: " in shown
    assert job.model_extra is not None
    for row in job.model_extra["manyicl"]["results"]:
        for warning in row["tuned_warnings"]:
            assert f"! {row['task']}, k={row['k']}: {warning['message'][:30]}" in shown
    report = json.loads(path.read_text(encoding="utf-8"))
    assert set(report) == {
        "model",
        "seconds",
        "results",
        "means",
        "recommendations",
        "differences",
        "forgetting",
        "training",
    }
    assert report["model"] == job.fine_tuned_model
    assert {"training", "evaluation", "post_to_first_step"} <= set(report["seconds"])
    assert len(report["results"]) == 6
    assert set(report["training"]) == {"tokens", "answers", "steps", "tokens_per_second", "peak_memory_bytes"}
    assert all(value > 0 for value in report["training"].values())


def test_a_running_job_is_cancelled_and_its_worker_trains_the_next(client: OpenAI, start_worker: StartWorker) -> None:
    start_worker()
    job = create_job(client, evaluate=False, n_epochs=1000)
    await_state(client, job.id, "running")
    client.fine_tuning.jobs.cancel(job.id)
    cancelled = await_state(client, job.id, "cancelled", "succeeded", "failed")
    assert cancelled.status == "cancelled"
    assert cancelled.fine_tuned_model is None

    # A job without queries is trained only.
    job = await_state(client, create_job(client, evaluate=False).id, "succeeded", "failed")
    assert job.status == "succeeded", job.error
    assert job.model_extra is not None
    assert job.model_extra["manyicl"]["results"] == []
