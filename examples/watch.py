"""Follow a job's events with a progress bar, as any client can."""

import time
from typing import Any

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_OVER = ("succeeded", "failed", "cancelled")
_POLL_SECONDS = 0.5
_PRINT_EVERY = 10


def watch_job(client: OpenAI, job_id: str, console: Console, seconds: dict[str, float]) -> FineTuningJob:
    """Show the job until it is over; note the seconds of training and evaluation."""
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    ]
    created = time.monotonic()
    seen: set[str] = set()
    with Progress(*columns, console=console) as progress:
        training = progress.add_task("training  ", total=None, note="waiting for a worker")
        evaluation = progress.add_task("evaluation", total=None, start=False, note="")
        while True:
            job = client.fine_tuning.jobs.retrieve(job_id)
            for event in _new_events(client, job_id, seen):
                data: Any = event.data
                if event.type == "metrics":
                    if "first_step" not in seconds:
                        seconds["post_to_first_step"] = round(time.monotonic() - created, 1)
                        seconds["first_step"] = round(float(data["seconds"]), 1)
                    # The job was retrieved just before the event: its plan may still be unknown.
                    plan = (job.model_extra or {})["manyicl"]["plan"] or {}
                    note = f"loss {data['train_loss']:.3f}, {data['tokens_per_second']:.0f} tokens/s"
                    progress.update(training, total=plan.get("steps"), completed=data["step"], note=note)
                    if data["step"] % _PRINT_EVERY == 0:
                        progress.console.print(event.message, markup=False)
                elif data is not None and "left" in data:
                    seconds["training"] = round(time.monotonic() - created, 1)
                    progress.update(evaluation, total=data["left"], completed=0)
                    progress.start_task(evaluation)
                    progress.console.print(event.message, markup=False)
                elif data is not None and data.get("type") in ("result", "curve", "plain_text"):
                    progress.update(evaluation, advance=1, note=data.get("task", "plain text"))
                    progress.console.print(event.message, markup=False)
                else:
                    progress.console.print(event.message, markup=False)
            if job.status in _OVER:
                seconds["evaluation"] = round(time.monotonic() - created - seconds.get("training", 0.0), 1)
                return job
            time.sleep(_POLL_SECONDS)


def _new_events(client: OpenAI, job_id: str, seen: set[str]) -> list[FineTuningJobEvent]:
    """Events not seen before, oldest first; pages are newest first, so the first known one ends it."""
    new: list[FineTuningJobEvent] = []
    for event in client.fine_tuning.jobs.list_events(job_id, limit=50):
        if event.id in seen:
            break
        new.append(event)
    seen.update(event.id for event in new)
    return new[::-1]
