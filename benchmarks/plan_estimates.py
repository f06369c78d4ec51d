"""Plans against what then happens: time and memory of training, for three different jobs.

``python -m benchmarks.plan_estimates --json FILE [--quick]`` starts the service, plans each job,
runs it, and compares. The time is from the job's creation until its training is complete.
"""

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.real_tasks import read_tasks
from examples.service import start_service
from examples.watch import watch_job
from manyicl_core.settings import DEFAULT_BASE_MODEL

TASKS = Path(__file__).resolve().parents[1] / "examples" / "tasks"
# Name, tasks, options, tokens, tokens of a quick run.
JOBS: list[tuple[str, list[str], dict[str, Any], int, int]] = [
    ("many_icl, 512 tokens", ["support_triage", "review_sentiment"], {"max_sequence_tokens": 512}, 40_000, 4_000),
    (
        "many_icl, 2048 tokens, top 10 layers",
        ["passage_qa", "sentence_pairs", "shop_arithmetic"],
        {"max_sequence_tokens": 2048, "lora": {"top_layers": 10}},
        60_000,
        8_000,
    ),
    (
        "zero_shot, 1024 tokens",
        ["mail_subject", "review_sentiment"],
        {"objective": "zero_shot", "max_sequence_tokens": 1024},
        40_000,
        4_000,
    ),
]


def main() -> int:
    """Plan and run the jobs, print the table, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the report goes")
    parser.add_argument("--quick", action="store_true", help="few tokens")
    arguments = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        service, connection = start_service(Path(folder))
        try:
            client = OpenAI(**connection)  # type: ignore[arg-type]
            for name, tasks, options, tokens, few in JOBS:
                budget = few if arguments.quick else tokens
                rows.append({"job": name, **compare(client, tasks, {**options, "token_budget": budget}, console)})
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait()
    print_rows(rows, console)
    report = {
        "jobs": rows,
        "worst_seconds_ratio": max((row["seconds_ratio"] for row in rows), key=lambda ratio: abs(ratio - 1)),
        "worst_peak_memory_ratio": max((row["peak_memory_ratio"] for row in rows), key=lambda ratio: abs(ratio - 1)),
    }
    arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def compare(client: OpenAI, tasks: list[str], options: dict[str, Any], console: Console) -> dict[str, Any]:
    """Plan a job and run it: the estimates, what happened, and estimate over what happened."""
    definitions, training, _ = read_tasks(TASKS, tasks)
    file = client.files.create(file=("train.jsonl", training), purpose="fine-tune").id
    manyicl = {"tasks": definitions, **options}
    body = {"model": DEFAULT_BASE_MODEL, "training_file": file, "seed": 1, "manyicl": manyicl}
    estimate = None
    while estimate is None:
        # The worker may still be measuring when the first answer comes.
        planned: Any = client.post("/fine_tuning/jobs/plan", body=body, cast_to=object)
        estimate = planned["estimate"]
        console.print(planned["no_estimate"] or f"estimated: {estimate}", markup=False)
    seconds: dict[str, float] = {}
    created = client.post("/fine_tuning/jobs", body=body, cast_to=FineTuningJob)
    job = watch_job(client, created.id, console, seconds)
    if job.status != "succeeded":
        raise SystemExit(f"the job {job.status}: {job.error}")
    assert job.model_extra is not None
    told = job.model_extra["manyicl"]
    for total in ("steps", "tokens", "answers", "target_tokens"):
        assert planned[total] == told["plan"][total], total
    return {
        "tokens": planned["tokens"],
        "estimated_seconds": estimate["seconds"],
        "seconds": seconds["training"],
        "seconds_ratio": round(estimate["seconds"] / seconds["training"], 3),
        "estimated_peak_memory_bytes": estimate["peak_memory_bytes"],
        "peak_memory_bytes": told["peak_memory_bytes"],
        "peak_memory_ratio": round(estimate["peak_memory_bytes"] / told["peak_memory_bytes"], 3),
    }


def print_rows(rows: list[dict[str, Any]], console: Console) -> None:
    """A row a job."""
    table = Table("job", "tokens", "estimated s", "actual s", "ratio", "estimated GB", "actual GB", "ratio", box=SIMPLE)
    for row in rows:
        table.add_row(
            row["job"],
            str(row["tokens"]),
            f"{row['estimated_seconds']:.0f}",
            f"{row['seconds']:.0f}",
            f"{row['seconds_ratio']:.2f}",
            f"{row['estimated_peak_memory_bytes'] / 1e9:.2f}",
            f"{row['peak_memory_bytes'] / 1e9:.2f}",
            f"{row['peak_memory_ratio']:.2f}",
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
