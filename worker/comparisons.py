"""What the measured items say about the models beside each other, about all tasks together, and about k."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from manyicl_core.contract.evidence import Evidence, ResultWarning, WarningCode
from manyicl_core.evaluation.evidence import always, baseline_warnings, evidence_of, most_frequent_answer
from manyicl_core.evaluation.recommendation import MeasuredShots, recommend_k
from manyicl_core.evaluation.statistics import Comparison, Items, compare, interval, read_items, value
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.evaluations.plan import EvaluatedWeights
from manyicl_core.store.evaluations.schemas import (
    DEDICATED,
    ComparisonObject,
    MeanObject,
    ModelWarning,
    RecommendationObject,
    Verdict,
)
from manyicl_core.store.tables import EvaluationResult


class Found(NamedTuple):
    """Everything that is known only when all is measured."""

    means: list[MeanObject]
    comparisons: list[ComparisonObject]
    recommendations: list[RecommendationObject]


@dataclass(frozen=True, slots=True)
class _Side:
    """What is compared: a model, or a dedicated job's models together, each at its own task."""

    name: str
    models: list[str]


@dataclass(frozen=True, slots=True)
class _Measured:
    """One task at one k, answered by ``model``."""

    model: str
    items: Items
    warnings: list[ResultWarning]
    simplest: Items
    """Those of always giving the most frequent answer."""


_ByTask = dict[str, _Measured]


def compare_models(
    store: ArtifactStore, models: Sequence[EvaluatedWeights], results: Sequence[EvaluationResult]
) -> Found:
    """Means over the tasks of each role, every other model against the first one at every k, and the k to use."""
    found = Found([], [], [])
    sides = _sides(models)
    shots = sorted({row.k for row in results})
    measured = {
        (side.name, role, k): _measured(store, side, [row for row in results if (row.role, row.k) == (role, k)])
        for side in sides
        for role in ("train", "heldout")
        for k in shots
    }
    first, *others = sides
    for role in ("train", "heldout"):
        for k in shots:
            for side in sides:
                found.means.extend(_mean(role, k, side, measured[side.name, role, k]))
            for side in others:
                ours, theirs = measured[side.name, role, k], measured[first.name, role, k]
                found.comparisons.extend(_comparisons(role, k, side, ours, first, theirs))
    for side in sides:
        by_k = {k: measured[side.name, "train", k] | measured[side.name, "heldout", k] for k in shots}
        found.recommendations.extend(_recommendations(side, by_k))
    return found


def _sides(models: Sequence[EvaluatedWeights]) -> list[_Side]:
    sides = [_Side(model.name, [model.name]) for model in models if model.tasks is None]
    dedicated = [model.name for model in models if model.tasks is not None]
    return [*sides, _Side(DEDICATED, dedicated)] if dedicated else sides


def _measured(store: ArtifactStore, side: _Side, rows: Sequence[EvaluationResult]) -> _ByTask:
    return {row.task: _read(store, row) for row in rows if row.model in side.models}


def _read(store: ArtifactStore, row: EvaluationResult) -> _Measured:
    items = read_items(row.metric, store.get(row.items_key).decode().splitlines())
    # A row from before there was evidence: what an attempt measured that an upgrade interrupted.
    evidence = evidence_of(items, None) if row.evidence is None else Evidence.model_validate(row.evidence)
    return _Measured(row.model, items, evidence.warnings, always(items, most_frequent_answer(items)[0]))


def _mean(role: str, k: int, side: _Side, measured: _ByTask) -> list[MeanObject]:
    if not measured:
        return []
    mean = interval([each.items for each in measured.values()])
    warned: dict[WarningCode, list[str]] = {}
    for task, each in measured.items():
        for warning in each.warnings:
            warned.setdefault(warning.code, []).append(task)
    mean_object = MeanObject(
        model=side.name,
        role=role,
        k=k,
        tasks=len(measured),
        value=mean.value,
        low=mean.low,
        high=mean.high,
        baseline=sum(value(each.simplest) for each in measured.values()) / len(measured),
        tasks_below_baseline=len(warned.get("below_most_frequent_answer", [])),
        warnings=_mean_warnings(list(measured.values())),
        warned_tasks=warned,
    )
    return [mean_object]


def _mean_warnings(measured: Sequence[_Measured]) -> list[ResultWarning]:
    """The warnings of several tasks together; of one task, its own."""
    if len(measured) == 1:
        return measured[0].warnings
    mean = sum(value(each.items) for each in measured) / len(measured)
    against_simplest = compare([(each.simplest, each.items) for each in measured])
    return [
        *(
            ResultWarning(code=code, message=f"gives all queries the same answer, in each of {len(measured)} tasks")
            for code in _ONE_ANSWER
            if all(code in (warning.code for warning in each.warnings) for each in measured)
        ),
        *baseline_warnings(f"mean of {len(measured)} tasks:", mean, against_simplest, None),
    ]


_ONE_ANSWER: tuple[WarningCode, ...] = ("answers_one_label_only", "answers_one_text_only")


def _comparisons(
    role: str, k: int, side: _Side, ours: _ByTask, first: _Side, theirs: _ByTask
) -> list[ComparisonObject]:
    """One a task, then one of their mean."""
    tasks = [task for task in ours if task in theirs]
    found = [_comparison(role, k, task, ours[task].model, [ours[task]], first.name, [theirs[task]]) for task in tasks]
    if tasks:
        together = ([by_task[task] for task in tasks] for by_task in (ours, theirs))
        found.append(_comparison(role, k, None, side.name, next(together), first.name, next(together)))
    return found


def _comparison(
    role: str,
    k: int,
    task: str | None,
    model: str,
    ours: Sequence[_Measured],
    against: str,
    theirs: Sequence[_Measured],
) -> ComparisonObject:
    """Two models over the same tasks, in one order."""
    found = compare([(first.items, second.items) for first, second in zip(theirs, ours, strict=True)])
    our_warnings, their_warnings = _mean_warnings(ours), _mean_warnings(theirs)
    return ComparisonObject(
        model=model,
        against=against,
        role=role,
        task=task,
        tasks=len(ours),
        k=k,
        difference=found.difference.value,
        low=found.difference.low,
        high=found.difference.high,
        p_value=found.p_value,
        mcnemar_p_value=found.mcnemar_p_value,
        verdict=_verdict(found, bool(our_warnings), bool(their_warnings)),
        warnings=[
            ModelWarning(model=name, **warning.model_dump())
            for name, warnings in ((model, our_warnings), (against, their_warnings))
            for warning in warnings
        ],
    )


def _verdict(comparison: Comparison, model_warned: bool, against_warned: bool) -> Verdict:
    """A model with a warning is not shown to be above always giving the most frequent answer: it wins nothing."""
    if comparison.difference.low > 0:
        return "not_above_baseline" if model_warned else "better"
    if comparison.difference.high < 0:
        return "not_above_baseline" if against_warned else "worse"
    return "not_above_baseline" if model_warned and against_warned else "no_difference"


def _recommendations(side: _Side, by_k: dict[int, _ByTask]) -> list[RecommendationObject]:
    """One a task, then one of all tasks together."""
    tasks = list(next(iter(by_k.values()), {}))
    found = []
    for task in tasks:
        measured = [_shots(k, [by_task[task]]) for k, by_task in by_k.items()]
        k, reason = recommend_k(measured)
        model = next(by_task[task].model for by_task in by_k.values())
        found.append(RecommendationObject(model=model, task=task, tasks=1, k=k, reason=reason))
    if tasks:
        k, reason = recommend_k([_shots(k, [by_task[task] for task in tasks]) for k, by_task in by_k.items()])
        if k is not None and (warned := [task for task in tasks if by_k[k][task].warnings]):
            reason += f"; at this k {len(warned)} of {len(tasks)} tasks have a warning"
        found.append(RecommendationObject(model=side.name, task=None, tasks=len(tasks), k=k, reason=reason))
    return found


def _shots(k: int, measured: Sequence[_Measured]) -> MeasuredShots:
    codes = frozenset(warning.code for warning in _mean_warnings(measured))
    return MeasuredShots(k, tuple(each.items for each in measured), codes)
