"""``manyicl plan``: ask the service what a job would do, and show it to a person."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from manyicl_core.cli.connection import ServiceFailed, answer_of, open_client
from manyicl_core.store.jobs.plan_schemas import EstimateObject, PlannedSequence, PlanObject

# The service counts.
_SECONDS = 600.0
_BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 24
_SHOWN_WARNINGS = 20
# What a terminal would obey is shown as a picture of itself; one character for one, so that offsets stay.
_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421, 0x9B: 0x241B}


class PlanFailed(ServiceFailed):
    """Why there is no plan, and what to do."""


def request_plan(body_file: Path, base_url: str, api_key: str) -> PlanObject:
    """The service's plan of the job in ``body_file``.

    ``training_file`` and ``validation_file`` may name local files, relative to ``body_file``: they
    are uploaded for the plan, and deleted after it.

    Raises:
        PlanFailed: a file cannot be read, or the service does not answer.
        ServiceFailed: the service refuses.
    """
    body = _read_body(body_file)
    try:
        with open_client(base_url, api_key, _SECONDS) as client, ExitStack() as uploads:
            for field in ("training_file", "validation_file"):
                if isinstance(name := body.get(field), str) and not name.startswith("file-"):
                    body[field] = uploads.enter_context(_uploaded(client, body_file.parent / name, field))
            return PlanObject.model_validate(answer_of(client.post("fine_tuning/jobs/plan", json=body)))
    except httpx2.HTTPError as error:
        raise PlanFailed(f"{base_url} does not answer ({error}); is the service running?") from error


def _read_body(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanFailed(f"{path}: {error.strerror}; give the file that holds the job's body as JSON") from error
    except ValueError as error:
        raise PlanFailed(f"{path} is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise PlanFailed(f"{path} holds no JSON object; a job's body is one")
    return body


@contextmanager
def _uploaded(client: httpx2.Client, path: Path, field: str) -> Iterator[str]:
    """The id of a file that is there while the block runs."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PlanFailed(
            f"{field}: {path}: {error.strerror}; name a file relative to the body, or the id of an uploaded one"
        ) from error
    sent = client.post("files", data={"purpose": "fine-tune"}, files={"file": (path.name, content)})
    file_id = answer_of(sent)["id"]
    try:
        yield file_id
    finally:
        client.delete(f"files/{file_id}")


def print_plan(plan: PlanObject, console: Console) -> None:
    """Totals, a histogram a task, warnings, and the first sequence with its targets highlighted."""
    about = "" if plan.exact else "about "
    console.print(_totals(plan, about))
    console.print(_tasks(plan))
    if plan.estimate:
        console.print(_estimate(plan.estimate))
    for warning in _warnings(plan):
        console.print(Text(f"! {warning}", style="yellow"))
    if plan.sequence:
        console.rule(f"The first sequence: task {plan.sequence.task}, {plan.sequence.tokens} tokens", align="left")
        console.print(highlighted(plan.sequence))


def _totals(plan: PlanObject, about: str) -> Table:
    totals = Table(title=f"{plan.model}, seed {plan.seed}", box=SIMPLE, show_header=False, title_justify="left")
    totals.add_column()
    totals.add_column(justify="right", style="bold")
    if plan.adapters != 1:
        totals.add_row("adapters", str(plan.adapters))
    for name in ("sequences", "steps", "tokens", "target_tokens", "answers"):
        totals.add_row(name.replace("_", " "), f"{about}{getattr(plan, name):,}")
    if plan.answers_over_few_shot is not None:
        totals.add_row("answers learnt from, few_shot at the same tokens = 1", f"{plan.answers_over_few_shot:.1f}")
    return totals


def _tasks(plan: PlanObject) -> Table:
    table = Table("task", "sequences", "tokens", "target tokens", "answers", "shots", "sequences by shots", box=SIMPLE)
    for column in table.columns[1:6]:
        column.justify = "right"
    for task in plan.tasks:
        fewest, most = min(task.shots), max(task.shots)
        shots = str(most) if fewest == most else f"{fewest}–{most}"
        numbers = (task.sequences, task.tokens, task.target_tokens, task.answers)
        table.add_row(Text(task.task), *(f"{number:,}" for number in numbers), shots, Text(_bars(task.shots), "cyan"))
    return table


def _bars(shots: dict[int, int]) -> str:
    """One bar a number of shots, from the fewest to the most; or one a range of them, where they are many."""
    fewest, most = min(shots), max(shots)
    width = -(-(most - fewest + 1) // _MOST_BARS)
    heights = [0] * ((most - fewest) // width + 1)
    for number, sequences in shots.items():
        heights[(number - fewest) // width] += sequences
    return "".join(_BARS[-(-height * len(_BARS) // max(heights)) - 1] if height else " " for height in heights)


def _estimate(estimate: EstimateObject) -> Text:
    return Text.assemble(
        "Training takes about ",
        (_duration(estimate.seconds), "bold"),
        " and ",
        (f"{estimate.peak_memory_bytes / 1e9:.1f} GB", "bold"),
        f" on a worker like this one: {estimate.device}, {estimate.dtype}, {estimate.threads} threads. "
        "The evaluation at the end comes on top.",
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _warnings(plan: PlanObject) -> Iterator[str]:
    if plan.no_estimate:
        yield f"No estimate of time and memory: {plan.no_estimate}"
    if plan.estimate and plan.estimate.note:
        yield f"The estimate is rough: {plan.estimate.note}"
    if not plan.exact:
        yield "The job is very long: its first part was counted, and the rest estimated from it"
    for misfit in plan.does_not_fit[:_SHOWN_WARNINGS]:
        yield misfit.message
    if (more := len(plan.does_not_fit) - _SHOWN_WARNINGS) > 0:
        yield f"and {more} more lines that do not fit"
    if plan.does_not_fit:
        yield "The plan leaves these lines out; the job itself would be refused"
    yield from (leak.message for leak in plan.near_leaks[:_SHOWN_WARNINGS])
    if (more := len(plan.near_leaks) - _SHOWN_WARNINGS) > 0:
        yield f"and {more} more near leaks"


def highlighted(sequence: PlannedSequence) -> Text:
    """The sequence's text: green what the loss covers, dim the other answers."""
    text = Text(sequence.text.translate(_VISIBLE))
    for answer in sequence.answers:
        text.stylize("bold green" if answer.supervised else "dim", answer.start, answer.end)
    return text
