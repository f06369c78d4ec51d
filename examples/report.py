"""The result table of a job, on the screen and as a file."""

import csv
import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any, cast

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table


def job_rows(job: FineTuningJob) -> list[dict[str, Any]]:
    """The job's results: task, role, k, metric, base, tuned, their intervals, the difference and its interval."""
    assert job.model_extra is not None
    rows: list[dict[str, Any]] = job.model_extra["manyicl"]["results"]
    return rows


def job_evaluation(client: OpenAI, job: FineTuningJob) -> dict[str, Any]:
    """The evaluation that ended the job; the ``openai`` client has no method of its own for it."""
    assert job.model_extra is not None
    path = f"/evaluations/{job.model_extra['manyicl']['evaluation']}"
    return cast(dict[str, Any], client.get(path, cast_to=object))


def print_table(client: OpenAI, job: FineTuningJob, console: Console) -> None:
    """A row a task, base and tuned side by side at each k; the means below; then warnings, k, and what was forgotten.

    A figure with ``!`` is the tuned one's that has a warning.
    """
    rows = job_rows(job)
    evaluation = job_evaluation(client, job)
    shots = sorted({row["k"] for row in rows})
    title = "base→tuned [95 % interval of the difference]; baseline: always the most frequent answer"
    table = Table("role", "task", "metric", "baseline", *[f"k={k}" for k in shots], title=title, box=SIMPLE)
    for column in table.columns:
        column.no_wrap = True
    for role in ("train", "heldout"):
        tasks: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        for row in rows:
            if row["role"] == role:
                tasks[row["task"]][row["k"]] = row
        for name, by_k in tasks.items():
            row = next(iter(by_k.values()))
            table.add_row(role, name, row["metric"], _short(row["baseline"]), *[_cell(by_k[k]) for k in shots])
        if tasks:
            means = [_mean(evaluation, role, k) for k in shots]
            cells = [_short(means[0]["baseline"]), *map(_cell, means)]
            table.add_row(role, "mean", "", *cells, style="bold", end_section=True)
    console.print(table)
    _print_warnings(evaluation, rows, console)
    for entry in evaluation["forgetting_report"]:
        text = entry["plain_text"]
        console.print(
            f"plain text: cross-entropy {text['before']:.3f}→{text['after']:.3f} nats a token "
            f"({text['difference']:+.3f})",
            markup=False,
        )


def _print_warnings(evaluation: dict[str, Any], rows: list[dict[str, Any]], console: Console) -> None:
    """What of the tuned model's figures is not to be trusted, and which k to use."""
    for row in rows:
        for warning in row["tuned_warnings"]:
            console.print(f"! {row['task']}, k={row['k']}: {warning['message']}", markup=False)
    for row in evaluation["recommendations"]:
        if row["task"] is None and row["model"] != evaluation["base_model"]:
            k = "none" if row["k"] is None else row["k"]
            console.print(f"recommended k: {k} ({row['reason']})", markup=False)


def write_report(path: Path, job: FineTuningJob, seconds: dict[str, float], client: OpenAI) -> None:
    """``demo-report.json``: phases, results, and what training took."""
    assert job.model_extra is not None
    manyicl = job.model_extra["manyicl"]
    evaluation = job_evaluation(client, job)
    metrics = list(csv.DictReader(io.StringIO(client.files.content(job.result_files[0]).text)))
    busy = sum(float(row["seconds"]) for row in metrics)
    report = {
        "model": job.fine_tuned_model,
        "seconds": seconds,
        "results": job_rows(job),
        "means": evaluation["means"],
        "recommendations": manyicl["recommendations"],
        "differences": [row for row in evaluation["comparisons"] if row["task"] is None],
        "forgetting": manyicl["forgetting"],
        "training": {
            "tokens": manyicl["plan"]["tokens"],
            "answers": manyicl["plan"]["answers"],
            "steps": manyicl["plan"]["steps"],
            "tokens_per_second": round(manyicl["plan"]["tokens"] / busy, 1),
            "peak_memory_bytes": manyicl["peak_memory_bytes"],
        },
    }
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _mean(evaluation: dict[str, Any], role: str, k: int) -> dict[str, Any]:
    """The means of a role's tasks, in the shape of a result."""
    base, tuned = (row for row in evaluation["means"] if (row["role"], row["k"]) == (role, k))
    difference = next(
        row for row in evaluation["comparisons"] if (row["task"], row["role"], row["k"]) == (None, role, k)
    )
    interval = [difference["low"], difference["high"]]
    return {
        "base": base["value"],
        "tuned": tuned["value"],
        "baseline": tuned["baseline"],
        "tuned_warnings": tuned["warnings"],
        "difference_interval": interval,
    }


def _cell(row: dict[str, Any]) -> str:
    low, high = row["difference_interval"]
    mark = "!" if row["tuned_warnings"] else ""
    return f"{_short(row['base'])}→{_short(row['tuned'])}{mark} [{_short(low, '+')} {_short(high, '+')}]"


def _short(value: float, sign: str = "") -> str:
    """Two decimals without the zero before the point."""
    return f"{value:{sign}.2f}".replace("0.", ".", 1)
