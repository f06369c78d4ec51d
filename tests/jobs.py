"""A small job that tests start: two trained tasks and a held-out one."""

import json
from typing import Any

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from sqlalchemy import func, select

from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Checkpoint, JobMetrics
from tests.services import BASE_MODEL, wait_for

TASKS = [
    {
        "name": "colour",
        "instruction": "Name the colour.",
        "labels": ["red", "blue"],
        "metric": "accuracy",
        "family": "a",
    },
    {"name": "sum", "instruction": "Add.", "family": "b"},
    {"name": "parity", "labels": ["odd", "even"], "metric": "accuracy", "role": "heldout", "family": "a"},
]


def example_lines(first: int, count: int) -> list[dict[str, str]]:
    """``count`` examples of each task, different for different ``first``."""
    lines = []
    for number in range(first, first + count):
        lines.append({"task": "colour", "input": f"thing {number}", "output": "red" if number % 3 else "blue"})
        lines.append({"task": "sum", "input": f"{number} and {number}", "output": str(2 * number)})
        lines.append({"task": "parity", "input": f"number {number}", "output": "odd" if number % 2 else "even"})
    return lines


def upload(client: OpenAI, lines: list[dict[str, Any]], name: str = "data.jsonl") -> str:
    """Upload lines as a fine-tuning file; gives its id."""
    content = "\n".join(json.dumps(line) for line in lines).encode()
    return client.files.create(file=(name, content), purpose="fine-tune").id


def create_job(
    client: OpenAI,
    evaluate: bool = True,
    model: str = BASE_MODEL,
    learning_rate_multiplier: float = 1.0,
    **manyicl: Any,
) -> FineTuningJob:
    """Create the small job; ``manyicl`` overrides its options."""
    options: dict[str, Any] = {"tasks": TASKS, "max_sequence_tokens": 128, "n_epochs": 2, **manyicl}
    if evaluate:
        options["evaluation"] = {"shots": [0, 2], "queries": 3}
    return client.fine_tuning.jobs.create(
        model=model,
        training_file=upload(client, example_lines(0, 12)),
        validation_file=upload(client, example_lines(100, 4)) if evaluate else None,
        seed=7,
        suffix="t",
        hyperparameters={"learning_rate_multiplier": learning_rate_multiplier},
        extra_body={"manyicl": options},
    )


def await_state(client: OpenAI, job_id: str, *states: str) -> FineTuningJob:
    """Wait until the job is in one of ``states``."""
    latest: list[FineTuningJob] = []

    def reached() -> bool:
        latest[:] = [client.fine_tuning.jobs.retrieve(job_id)]
        return latest[0].status in states

    wait_for(reached, f"job {job_id} to be {' or '.join(states)}")
    return latest[0]


def recorded_checkpoints(job_id: str) -> int:
    with transaction() as session:
        return len(session.scalars(select(Checkpoint.step).where(Checkpoint.job_id == job_id)).all())


def last_checkpoint(job_id: str) -> int:
    """The step of the newest one; older ones go."""
    with transaction() as session:
        return session.scalar(select(func.max(Checkpoint.step)).where(Checkpoint.job_id == job_id)) or 0


def learnt(job_id: str) -> tuple[dict[tuple[str | None, int], str], list[dict[str, Any]]]:
    """The hashes of all weights by task and step, and the metric stream, without the times."""
    with transaction() as session:
        rows = session.scalars(select(JobMetrics.values).where(JobMetrics.job_id == job_id).order_by(JobMetrics.step))
        stream = [{key: value for key, value in row.items() if "second" not in key} for row in rows]
        kept = session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id))
        return {(checkpoint.task, checkpoint.step): checkpoint.weights_sha256 for checkpoint in kept}, stream
