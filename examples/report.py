"""The result table of a job, on the screen and as a file."""

import csv
import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table


def job_rows(job: FineTuningJob) -> list[dict[str, Any]]:
    """The job's results: task, family, role, k, metric, base, tuned, queries."""
    assert job.model_extra is not None
    rows: list[dict[str, Any]] = job.model_extra["manyicl"]["results"]
    return rows


def print_table(job: FineTuningJob, console: Console) -> None:
    """A row a task, base and tuned side by side at each k; the means below."""
    rows = job_rows(job)
    shots = sorted({row["k"] for row in rows})
    table = Table("role", "task", "metric", *[f"k={k}" for k in shots], title="base→tuned", box=SIMPLE)
    for column in table.columns:
        column.no_wrap = True
    for role in ("train", "heldout"):
        tasks: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        for row in rows:
            if row["role"] == role:
                tasks[row["task"]][row["k"]] = row
        for name, by_k in tasks.items():
            metric = next(iter(by_k.values()))["metric"]
            table.add_row(role, name, metric, *[_pair(by_k[k]["base"], by_k[k]["tuned"]) for k in shots])
        means = [
            [sum(by_k[k][side] for by_k in tasks.values()) / len(tasks) for side in ("base", "tuned")]
            for k in shots
            if tasks
        ]
        table.add_row(role, "mean", "", *[_pair(base, tuned) for base, tuned in means], style="bold", end_section=True)
    console.print(table)


def write_report(path: Path, job: FineTuningJob, seconds: dict[str, float], client: OpenAI) -> None:
    """``demo-report.json``: phases, results, and what training took."""
    assert job.model_extra is not None
    manyicl = job.model_extra["manyicl"]
    metrics = list(csv.DictReader(io.StringIO(client.files.content(job.result_files[0]).text)))
    busy = sum(float(row["seconds"]) for row in metrics)
    report = {
        "model": job.fine_tuned_model,
        "seconds": seconds,
        "results": job_rows(job),
        "training": {
            "tokens": manyicl["plan"]["tokens"],
            "answers": manyicl["plan"]["answers"],
            "steps": manyicl["plan"]["steps"],
            "tokens_per_second": round(manyicl["plan"]["tokens"] / busy, 1),
            "peak_memory_bytes": manyicl["peak_memory_bytes"],
        },
    }
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _pair(base: float, tuned: float) -> str:
    return f"{base:.2f}→{tuned:.2f}"
