"""What `manyicl plan` prints."""

import io
from typing import Any

from rich.console import Console

from manyicl_core.cli.plan import highlighted, print_plan
from manyicl_core.store.jobs.plan_schemas import PlannedSequence, PlanObject

SEQUENCE = {
    "task": "sum",
    "tokens": 9,
    "text": "Input: 1\nOutput: 1\n\nInput: \x1b[2J\nOutput: 2\n",
    "documents": [0],
    "answers": [
        {"start": 16, "end": 19, "shot": 0, "supervised": False},
        {"start": 39, "end": 42, "shot": 1, "supervised": True},
    ],
}


def plan_of(**fields: Any) -> PlanObject:
    task = {"sequences": 5, "tokens": 500, "target_tokens": 50, "answers": 25}
    plan = {
        "model": "tiny",
        "seed": 7,
        "hyperparameters": {},
        "adapters": 1,
        "exact": True,
        "sequences": 1234,
        "steps": 617,
        "tokens": 1_000_000,
        "target_tokens": 100_000,
        "answers": 20_000,
        "answers_over_few_shot": 16.2,
        "tasks": [{**task, "task": "sum", "shots": {2: 1, 4: 2, 5: 4}}, {**task, "task": "[red]", "shots": {3: 5}}],
        "does_not_fit": [],
        "near_leaks": [],
        "sequence": SEQUENCE,
        **fields,
    }
    return PlanObject.model_validate(plan)


def printed(plan: PlanObject, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=150, record=True, **options)
    print_plan(plan, console)
    return console.export_text(styles=bool(options))


def test_totals_and_a_histogram_a_task_are_printed() -> None:
    text = printed(plan_of())
    for number in ("1,234", "617", "1,000,000", "100,000", "20,000", "16.2"):
        assert number in text
    assert "2–5" in text and "▂ ▄█" in text
    assert "[red]" in text
    assert "!" not in text


def test_many_numbers_of_shots_share_bars() -> None:
    shots = dict.fromkeys(range(10, 110), 1)
    task = {"task": "long", "sequences": 100, "tokens": 1, "target_tokens": 1, "answers": 1, "shots": shots}
    text = printed(plan_of(tasks=[task]))
    assert "10–109" in text
    assert "█" * 20 in text and "█" * 25 not in text


def test_targets_are_green_and_other_answers_dim() -> None:
    text = highlighted(PlannedSequence.model_validate(SEQUENCE))
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert styles == {" 1\n": "dim", " 2\n": "bold green"}
    coloured = printed(plan_of(), force_terminal=True, color_system="standard")
    assert "\x1b[1;32m 2" in coloured


def test_an_example_cannot_command_the_terminal() -> None:
    assert "\x1b[2J" not in printed(plan_of())
    assert "␛[2J" in printed(plan_of())


def test_the_estimate_is_in_words() -> None:
    estimate = {
        "seconds": 9000.0,
        "peak_memory_bytes": 2_340_000_000,
        "device": "cpu",
        "dtype": "bfloat16",
        "threads": 2,
        "measured_at": 1,
        "note": "measured with rank 8",
    }
    text = printed(plan_of(estimate=estimate))
    assert "The estimate is rough: measured with rank 8" in " ".join(text.split())
    assert "2 h 30 min and 2.3 GB on a worker like this one: cpu, bfloat16, 2 threads" in " ".join(text.split())


def test_what_is_wrong_is_a_warning() -> None:
    misfit = {"file": "training", "task": "sum", "line": 3, "tokens": 400, "limit": 128, "message": "line 3: too long"}
    leak = {**misfit, "other_task": "sum", "other_line": 1, "words": "a b", "message": "line 9 shares 10 words"}
    text = printed(
        plan_of(
            does_not_fit=[misfit] * 21, near_leaks=[leak], no_estimate="no worker answers", exact=False, sequence=None
        )
    )
    assert text.count("! line 9 shares 10 words") == 1
    assert text.count("! line 3: too long") == 20
    assert "! and 1 more lines that do not fit" in text
    assert "! No estimate of time and memory: no worker answers" in text
    assert "about 1,234" in text
