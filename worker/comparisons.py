"""What the measured items say about the models beside each other, and about all tasks together."""

from collections.abc import Sequence
from dataclasses import dataclass

from manyicl_core.evaluation.statistics import Comparison, Items, compare, interval, read_items
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.evaluations.plan import EvaluatedWeights
from manyicl_core.store.evaluations.schemas import DEDICATED, ComparisonObject, MeanObject
from manyicl_core.store.tables import EvaluationResult


@dataclass(frozen=True, slots=True)
class _Side:
    """What is compared: a model, or a dedicated job's models together, each at its own task."""

    name: str
    models: list[str]


def compare_models(
    store: ArtifactStore, models: Sequence[EvaluatedWeights], results: Sequence[EvaluationResult]
) -> tuple[list[MeanObject], list[ComparisonObject]]:
    """Means over the tasks of each role, and every other model against the first one, at every k."""
    sides = _sides(models)
    means: list[MeanObject] = []
    comparisons: list[ComparisonObject] = []
    for role in ("train", "heldout"):
        for k in sorted({row.k for row in results}):
            rows = [row for row in results if (row.role, row.k) == (role, k)]
            first, *others = [_measured(store, side, rows) for side in sides]
            for side, measured in zip(sides, [first, *others], strict=True):
                means += _mean(role, k, side, measured)
            for side, measured in zip(sides[1:], others, strict=True):
                comparisons += _comparisons(role, k, side, measured, sides[0], first)
    return means, comparisons


_Measured = dict[str, tuple[str, Items]]
"""By task, the name of the model that answered it and its items."""


def _sides(models: Sequence[EvaluatedWeights]) -> list[_Side]:
    sides = [_Side(model.name, [model.name]) for model in models if model.tasks is None]
    dedicated = [model.name for model in models if model.tasks is not None]
    return [*sides, _Side(DEDICATED, dedicated)] if dedicated else sides


def _measured(store: ArtifactStore, side: _Side, rows: Sequence[EvaluationResult]) -> _Measured:
    return {
        row.task: (row.model, read_items(row.metric, store.get(row.items_key).decode().splitlines()))
        for row in rows
        if row.model in side.models
    }


def _mean(role: str, k: int, side: _Side, measured: _Measured) -> list[MeanObject]:
    if not measured:
        return []
    mean = interval([items for _, items in measured.values()])
    return [
        MeanObject(model=side.name, role=role, k=k, tasks=len(measured), value=mean.value, low=mean.low, high=mean.high)
    ]


def _comparisons(
    role: str, k: int, side: _Side, measured: _Measured, against: _Side, first: _Measured
) -> list[ComparisonObject]:
    """One a task, then one of their mean."""
    pairs = {task: (first[task][1], items) for task, (_, items) in measured.items() if task in first}
    found = [
        _object(measured[task][0], against.name, role, task, 1, k, compare([pair])) for task, pair in pairs.items()
    ]
    if pairs:
        found.append(_object(side.name, against.name, role, None, len(pairs), k, compare(list(pairs.values()))))
    return found


def _object(
    model: str, against: str, role: str, task: str | None, tasks: int, k: int, comparison: Comparison
) -> ComparisonObject:
    difference = comparison.difference
    return ComparisonObject(
        model=model,
        against=against,
        role=role,
        task=task,
        tasks=tasks,
        k=k,
        difference=difference.value,
        low=difference.low,
        high=difference.high,
        p_value=comparison.p_value,
        mcnemar_p_value=comparison.mcnemar_p_value,
    )
