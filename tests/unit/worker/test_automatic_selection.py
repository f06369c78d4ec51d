"""Selection by a validation part, with models whose answers are known."""

import asyncio
from collections.abc import Sequence

from manyicl_core.method.contexts import Context
from manyicl_core.method.tasks import Example
from manyicl_core.store.contexts.context_object import SelectedObject
from tests.unit.sample_tasks import BYTES, numbered_task, task_of
from worker.automatic_selection import Answers, choose_automatically
from worker.demonstrations import Draw


def choose(draw: Draw, answers: Answers) -> tuple[Context, SelectedObject]:
    return asyncio.run(choose_automatically(draw, answers))


def draw_from(size: int, max_shots: int | None = None, **definition: object) -> Draw:
    return Draw(BYTES, numbered_task(size, **definition), seed=2, max_shots=max_shots, max_tokens=100_000)


async def all_right(context: Context, queries: Sequence[Example]) -> list[str]:
    return [query.output for query in queries]


async def right_behind_forty_shots(context: Context, queries: Sequence[Example]) -> list[str]:
    return [query.output if context.shots >= 40 else "?" for query in queries]


def test_a_model_that_is_right_with_few_shots_gets_the_fewest() -> None:
    context, selected = choose(draw_from(100, max_shots=40), all_right)
    assert (context.shots, selected.validation_examples) == (10, 25)
    assert [(tried.shots, tried.score) for tried in selected.tried] == [(40, 1.0), (40, 1.0), (20, 1.0), (10, 1.0)]
    assert min(tried.tokens for tried in selected.tried) == len(context.tokens)


def test_a_model_that_needs_all_shots_gets_all_of_them_from_all_examples() -> None:
    context, selected = choose(draw_from(100), right_behind_forty_shots)
    assert context.shots == 100, "the validation part is shown too, in the end"
    assert {tried.shots: tried.score for tried in selected.tried} == {75: 1.0, 37: 0.0, 18: 0.0}


def test_the_kind_whose_answers_are_right_is_taken() -> None:
    pairs = [(f"the parcel came late {number}", "late") for number in range(80)] + [("invoice", "bill")] * 4

    async def right_if_the_rare_is_shown(context: Context, queries: Sequence[Example]) -> list[str]:
        knows = b"invoice" in bytes(context.tokens)
        return [query.output if knows else "?" for query in queries]

    draw = Draw(BYTES, task_of(pairs), seed=1, max_shots=3, max_tokens=100_000)
    _, selected = choose(draw, right_if_the_rare_is_shown)
    assert selected.selection == "diverse"
    assert {tried.selection for tried in selected.tried} == {"random", "diverse"}


def test_validation_queries_are_not_shown_while_they_are_asked_and_are_bounded() -> None:
    asked: list[int] = []

    async def look(context: Context, queries: Sequence[Example]) -> list[str]:
        asked.append(len(queries))
        assert not {query.line for query in queries} & set(context.lines)
        return [query.output for query in queries]

    choose(draw_from(1000, max_shots=8), look)
    assert asked == [64] * 4


def test_too_few_examples_are_not_split() -> None:
    async def never(context: Context, queries: Sequence[Example]) -> list[str]:
        raise AssertionError("nothing is asked")

    labels = {"labels": [f"{number:03}" for number in range(19)]}
    context, selected = choose(draw_from(19, **labels), never)
    assert (context.shots, selected.selection, selected.tried) == (19, "balanced", [])
    assert selected.reason == "automatic selection needs 20 examples"
