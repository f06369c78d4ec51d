"""Choose how to choose: try the kinds of selection on examples kept apart, and take the cheapest good one."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from manyicl_core.evaluation.metrics import item_score
from manyicl_core.method.contexts import Context
from manyicl_core.method.sampling import context_order
from manyicl_core.method.selection import Scored, SelectionKind, cheapest_good
from manyicl_core.method.tasks import Example
from manyicl_core.store.contexts.context_object import SelectedObject, TriedObject
from manyicl_core.store.contexts.service import QUERY_ROOM
from worker.demonstrations import Draw

_MOST_QUERIES = 64
_LEAST_QUERIES = 5
_VALIDATION_SHARE = 4  # one example in so many
_VALIDATION_DRAW = 1  # contexts are draw 0

Answers = Callable[[Context, Sequence[Example]], Awaitable[list[str]]]
"""The answers of the model to the inputs of examples behind a context."""


@dataclass(frozen=True, slots=True)
class _Tried:
    kind: SelectionKind
    max_shots: int | None
    context: Context
    scores: tuple[float, ...]


async def choose_automatically(draw: Draw, answers: Answers) -> tuple[Context, SelectedObject]:
    """The context of the kind of selection and number of shots that answer best.

    Every kind is tried with all shots, then the best kind with a half and a quarter of them; the
    winner is drawn anew from all examples. At most five contexts with 64 queries each.
    """
    kinds: list[SelectionKind] = ["random", "diverse"]
    if draw.task.definition.labels is not None:
        kinds.insert(0, "balanced")
    queries, rest = _split(draw)
    if len(queries) < _LEAST_QUERIES:
        few = f"automatic selection needs {_LEAST_QUERIES * _VALIDATION_SHARE} examples"
        return draw.context(kinds[0]), SelectedObject(selection=kinds[0], reason=few)
    metric = draw.task.definition.metric

    async def attempt(kind: SelectionKind, max_shots: int | None) -> _Tried:
        context = draw.of(rest).shots(max_shots).context(kind)
        given = await answers(context, queries)
        scores = (item_score(metric, text, query.output) for text, query in zip(given, queries, strict=True))
        return _Tried(kind, max_shots, context, tuple(scores))

    tried = [await attempt(kind, draw.max_shots) for kind in kinds]
    best = tried[_winner(tried)]
    tried += [await attempt(best.kind, best.context.shots // part) for part in (2, 4) if best.context.shots >= part]
    winner = tried[_winner(tried)]
    selected = SelectedObject(
        selection=winner.kind,
        validation_examples=len(queries),
        metric=metric,
        tried=[_told(each) for each in tried],
        reason="the fewest tokens within one standard error of the best score",
    )
    return draw.shots(winner.max_shots).context(winner.kind), selected


def _split(draw: Draw) -> tuple[list[Example], list[Example]]:
    """Queries to validate with, labels balanced, and the examples to draw from meanwhile."""
    examples, definition = draw.task.demonstrations, draw.task.definition
    outputs = [example.output for example in examples]
    order = context_order(draw.seed, _VALIDATION_DRAW, definition.name, outputs, definition.labels is not None)
    count = min(_MOST_QUERIES, len(examples) // _VALIDATION_SHARE)
    asked = {index for index in order[:count] if _fits(draw, examples[index])}
    queries = [examples[index] for index in sorted(asked)]
    return queries, [example for index, example in enumerate(examples) if index not in asked]


def _fits(draw: Draw, example: Example) -> bool:
    return len(draw.encoder.query(example.input, example.earlier)) <= QUERY_ROOM


def _winner(tried: Sequence[_Tried]) -> int:
    return cheapest_good([Scored(len(each.context.tokens), each.scores) for each in tried])


def _told(tried: _Tried) -> TriedObject:
    return TriedObject(
        selection=tried.kind, shots=tried.context.shots, tokens=len(tried.context.tokens), score=fmean(tried.scores)
    )
