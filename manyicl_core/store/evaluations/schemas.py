"""Evaluations as the API shows them."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from manyicl_core.contract.evidence import (
    Baseline,
    Confusion,
    Evidence,
    LabelFigures,
    ResultWarning,
    WarningCode,
)
from manyicl_core.store.evaluations.plan import evaluated_weights, planned_measurements
from manyicl_core.store.evaluations.reports import Report
from manyicl_core.store.tables import Evaluation, EvaluationEvent, EvaluationResult
from manyicl_core.store.tables.events import EventType, Level
from manyicl_core.store.waiting import WaitingFor

DEDICATED = "dedicated"
"""Stands for the models of a dedicated job together, each at its own task, where tasks are averaged."""

Verdict = Literal["better", "worse", "no_difference", "not_above_baseline"]


class EvaluationError(BaseModel):
    """Why an evaluation failed, and what to do next."""

    code: str
    message: str


class Progress(BaseModel):
    """How many of the results are there: points, curves and plain texts."""

    done: int
    total: int


class ResultObject(BaseModel):
    """One metric of one model and task at one k, from 0 to 1, with its 95 % interval.

    ``shots`` is what a context really held, where less than ``k`` exists or fits. ``seconds`` is
    for all queries and draws, ``seconds_per_query`` the median of one answer. The fields of
    ``Evidence`` follow; a result from before there was any has no ``baseline``.
    """

    model: str
    task: str
    family: str
    role: str
    k: int
    shots: int
    metric: str
    value: float
    low: float
    high: float
    queries: int
    draws: int
    seconds: float
    seconds_per_query: float
    baseline: Baseline | None
    distinct_answers: int | None
    macro_f1: float | None
    labels: list[LabelFigures] | None
    confusion: Confusion | None
    warnings: list[ResultWarning]


class CurveObject(BaseModel):
    """Exact match at 0, 1, 2, … shots, and how many answers each mean is over."""

    model: str
    task: str
    exact_match: list[float]
    answers: list[int]


class PlainTextObject(BaseModel):
    """Cross-entropy on a fixed plain text, in nats a token."""

    model: str
    cross_entropy: float
    tokens: int


class MeanObject(BaseModel):
    """The mean of a model's metrics over the trained or the held-out tasks at one k, with its interval.

    ``model`` is ``dedicated`` for the models of a dedicated job, each at its own task. ``baseline``
    is the mean of the tasks' baselines, ``warnings`` are those of the mean, ``warned_tasks`` the
    tasks of each warning.
    """

    model: str
    role: str
    k: int
    tasks: int
    value: float
    low: float
    high: float
    baseline: float | None = None
    tasks_below_baseline: int | None = None
    warnings: list[ResultWarning] = []
    warned_tasks: dict[WarningCode, list[str]] = {}


class ModelWarning(ResultWarning):
    """A warning of one of the compared models."""

    model: str


class ComparisonObject(BaseModel):
    """``model`` minus ``against`` on the same queries and draws, with the 95 % interval of the difference.

    ``task`` is None for the mean over the ``tasks`` tasks of a role. ``p_value`` is the paired
    bootstrap's; ``mcnemar_p_value`` is there where every score is 0 or 1. ``verdict`` says how
    ``model`` did; ``not_above_baseline``: the better one, or either, is no better than always
    giving the most frequent answer, so the difference means nothing.
    """

    model: str
    against: str
    role: str
    task: str | None
    tasks: int
    k: int
    difference: float
    low: float
    high: float
    p_value: float
    mcnemar_p_value: float | None
    verdict: Verdict | None = None
    warnings: list[ModelWarning] = []


class RecommendationObject(BaseModel):
    """The k to serve a model with at one task, or, with ``task`` None, at all ``tasks`` tasks; and why.

    ``k`` is None where the model is useless at every k.
    """

    model: str
    task: str | None
    tasks: int
    k: int | None
    reason: str


class PlainTextChange(BaseModel):
    """Cross-entropy of the model it is held against, and of the model; a rise is forgetting."""

    before: float
    after: float
    difference: float


class ForgettingObject(BaseModel):
    """What a model lost beside another: on plain text, and on tasks it was not trained on."""

    model: str
    against: str
    plain_text: PlainTextChange | None
    heldout: list[ComparisonObject]


class EvaluationObject(BaseModel):
    """One evaluation; ``job`` is the fine-tuning job that it ends, if it belongs to one."""

    id: str
    object: Literal["evaluation"] = "evaluation"
    created_at: int
    started_at: int | None
    finished_at: int | None
    status: str
    waiting_for: WaitingFor | None
    job: str | None
    base_model: str
    models: list[str]
    tasks: list[str]
    shots: list[int]
    queries: int
    draws: int
    curve_shots: int
    forgetting: bool
    seed: int
    progress: Progress
    results: list[ResultObject]
    means: list[MeanObject]
    comparisons: list[ComparisonObject]
    recommendations: list[RecommendationObject]
    curves: list[CurveObject]
    plain_text: list[PlainTextObject]
    forgetting_report: list[ForgettingObject]
    result_files: list[str]
    error: EvaluationError | None


class EvaluationEventObject(BaseModel):
    """One line of an evaluation's story."""

    id: str
    object: Literal["evaluation.event"] = "evaluation.event"
    created_at: int
    level: Level
    type: EventType
    message: str
    data: dict[str, Any] | None


def evaluation_object(evaluation: Evaluation, report: Report, waiting: WaitingFor | None) -> EvaluationObject:
    """A row as the API shows it."""
    return EvaluationObject(
        id=evaluation.id,
        created_at=int(evaluation.created_at.timestamp()),
        started_at=_seconds(evaluation.started_at),
        finished_at=_seconds(evaluation.finished_at),
        status=evaluation.state,
        waiting_for=waiting,
        job=evaluation.job_id,
        base_model=evaluation.base_model,
        models=[weights.name for weights in evaluated_weights(evaluation)],
        tasks=evaluation.tasks,
        seed=evaluation.seed,
        **evaluation.options,
        progress=Progress(done=report.measured, total=planned_measurements(evaluation)),
        results=[result_object(row) for row in report.results],
        means=[MeanObject.model_validate(row) for row in evaluation.means],
        comparisons=comparisons(evaluation),
        recommendations=recommendations(evaluation),
        curves=[CurveObject.model_validate(row, from_attributes=True) for row in report.curves],
        plain_text=[PlainTextObject.model_validate(row, from_attributes=True) for row in report.plain_text],
        forgetting_report=forgetting_report(evaluation, report),
        result_files=evaluation.result_files,
        error=evaluation_error(evaluation),
    )


def evaluation_error(evaluation: Evaluation) -> EvaluationError | None:
    """Why it failed, if it has."""
    if evaluation.error_code is None:
        return None
    return EvaluationError(code=evaluation.error_code, message=evaluation.error_message or "")


def result_object(row: EvaluationResult) -> ResultObject:
    """A row as the API shows it."""
    measured = {name: getattr(row, name) for name in ResultObject.model_fields if name not in Evidence.model_fields}
    return ResultObject.model_validate(measured | (row.evidence or _NO_EVIDENCE))


_NO_EVIDENCE: dict[str, Any] = {**dict.fromkeys(Evidence.model_fields), "warnings": []}


def recommendations(evaluation: Evaluation) -> list[RecommendationObject]:
    """Which k to serve each model with; none before the end."""
    return [RecommendationObject.model_validate(row) for row in evaluation.recommendations]


def comparisons(evaluation: Evaluation) -> list[ComparisonObject]:
    """The paired comparisons; none before the end."""
    return [ComparisonObject.model_validate(row) for row in evaluation.comparisons]


def forgetting_report(evaluation: Evaluation, report: Report) -> list[ForgettingObject]:
    """What every other model lost beside the first one; nothing where it was not asked for."""
    if not evaluation.options["forgetting"]:
        return []
    entropy = {row.model: row.cross_entropy for row in report.plain_text}
    first, *others = [weights.name for weights in evaluated_weights(evaluation)]
    entries = []
    for model in others:
        change = None
        if first in entropy and model in entropy:
            before, after = entropy[first], entropy[model]
            change = PlainTextChange(before=before, after=after, difference=after - before)
        heldout = [row for row in comparisons(evaluation) if (row.model, row.role) == (model, "heldout")]
        entries.append(ForgettingObject(model=model, against=first, plain_text=change, heldout=heldout))
    return entries


def evaluation_event_object(event: EvaluationEvent) -> EvaluationEventObject:
    """A row as the API shows it."""
    return EvaluationEventObject(
        id=event.id,
        created_at=int(event.created_at.timestamp()),
        level=event.level,
        type=event.type,
        message=event.message,
        data=event.data,
    )


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
