"""Which examples a hosted context shows."""

import pytest

from manyicl_core.method.contexts import draw_context
from manyicl_core.method.selection import SelectionKind
from tests.unit.sample_tasks import BYTES, numbered_task, task_of
from worker.demonstrations import Draw

SUBJECTS = ("the parcel came late", "my invoice is wrong", "the lamp is broken")


def three_subjects(**definition: object) -> Draw:
    """Many examples of three subjects, the first by far the most frequent."""
    texts = [f"{SUBJECTS[0]} again {number}" for number in range(40)]
    texts += [f"{subject} {number}" for subject in SUBJECTS[1:] for number in range(3)]
    task = task_of([(text, "xy"[number % 2]) for number, text in enumerate(texts)], **definition)
    return Draw(BYTES, task, seed=1, max_shots=None, max_tokens=100_000)


def shown(draw: Draw, kind: SelectionKind) -> list[str]:
    """The inputs of the drawn demonstrations, in order."""
    inputs = {example.line: example.input for example in draw.task.demonstrations}
    return [inputs[line] for line in draw.context(kind).lines]


@pytest.mark.parametrize("seed", range(5))
def test_diverse_demonstrations_cover_the_subjects_with_few_shots(seed: int) -> None:
    draw = three_subjects().shots(3)
    draw = Draw(BYTES, draw.task, seed, 3, 100_000)
    assert {subject for subject in SUBJECTS for text in shown(draw, "diverse") if text.startswith(subject)} == {
        *SUBJECTS
    }


def test_diverse_demonstrations_of_a_closed_task_are_balanced_too() -> None:
    draw = three_subjects(labels=["x", "y"]).shots(6)
    outputs = {example.line: example.output for example in draw.task.demonstrations}
    chosen = [outputs[line] for line in draw.context("diverse").lines]
    assert sorted(chosen) == list("xxxyyy")


@pytest.mark.parametrize("kind", ["balanced", "random", "diverse"])
def test_a_draw_repeats_itself_and_another_seed_draws_others(kind: SelectionKind) -> None:
    task = numbered_task(60)
    draws = [Draw(BYTES, task, seed, 8, 100_000).context(kind) for seed in (3, 3, 4)]
    assert draws[0] == draws[1]
    assert draws[0].lines != draws[2].lines
    assert len(set(draws[0].lines)) == draws[0].shots == 8


@pytest.mark.parametrize("kind", ["balanced", "random", "diverse"])
def test_a_draw_keeps_its_budget_of_tokens(kind: SelectionKind) -> None:
    context = Draw(BYTES, numbered_task(60), 0, None, 300).context(kind)
    assert 0 < context.shots < 60
    assert len(context.tokens) <= 300


def test_a_hosted_draw_shows_what_a_call_by_task_shows() -> None:
    task = numbered_task(30)
    drawn = Draw(BYTES, task, 0, 9, 100_000).context("random")
    assert drawn == draw_context(BYTES, task.definition, task.demonstrations, 9, 100_000)
