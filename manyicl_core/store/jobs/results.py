"""What the evaluations of jobs have found: base beside tuned."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from manyicl_core.store.evaluations.plan import evaluated_weights
from manyicl_core.store.evaluations.reports import Report, read_reports
from manyicl_core.store.evaluations.schemas import (
    ComparisonObject,
    EvaluationError,
    ForgettingObject,
    RecommendationObject,
    ResultObject,
    comparisons,
    evaluation_error,
    forgetting_report,
    recommendations,
    result_object,
)
from manyicl_core.store.tables import Evaluation, Job


@dataclass(frozen=True, slots=True)
class PairedResult:
    """One task at one k: the base model's metric beside the tuned one's."""

    base: ResultObject
    tuned: ResultObject
    difference: ComparisonObject | None


@dataclass(frozen=True, slots=True)
class JobEvaluation:
    """What a job's evaluation has found so far."""

    id: str
    status: str
    error: EvaluationError | None
    results: list[PairedResult]
    recommendations: list[RecommendationObject]
    forgetting: list[ForgettingObject]


def job_evaluations(session: Session, jobs: Sequence[Job]) -> dict[str, JobEvaluation]:
    """The evaluations of several jobs, by the job's id."""
    # There is none before something is trained: most looks at a job need not ask.
    trained = [job.id for job in jobs if job.weights_sha256 is not None]
    if not trained:
        return {}
    evaluations = list(session.scalars(select(Evaluation).where(Evaluation.job_id.in_(trained))))
    reports = read_reports(session, evaluations)
    return {str(evaluation.job_id): _job_evaluation(evaluation, reports[evaluation.id]) for evaluation in evaluations}


def job_evaluation(session: Session, job: Job) -> JobEvaluation | None:
    """The evaluation of one job, once it has begun."""
    return job_evaluations(session, [job]).get(job.id)


def _job_evaluation(evaluation: Evaluation, report: Report) -> JobEvaluation:
    by_point: dict[tuple[str, int], dict[str, ResultObject]] = defaultdict(dict)
    for row in report.results:
        by_point[row.task, row.k][row.model] = result_object(row)
    differences = {(row.task, row.k): row for row in comparisons(evaluation)}
    pairs = []
    for (task, k), by_model in by_point.items():
        base, tuned = evaluation.base_model, tuned_model(evaluation, task)
        if base in by_model and tuned in by_model:
            pairs.append(PairedResult(by_model[base], by_model[tuned], differences.get((task, k))))
    ours = [row for row in recommendations(evaluation) if row.model != evaluation.base_model]
    return JobEvaluation(
        evaluation.id,
        evaluation.state,
        evaluation_error(evaluation),
        pairs,
        ours,
        forgetting_report(evaluation, report),
    )


def tuned_model(evaluation: Evaluation, task: str) -> str:
    """The name of the job's model that answers ``task``: of a dedicated job, that of the task."""
    _, *made = evaluated_weights(evaluation)
    return next(weights.name for weights in made if weights.answers(task))
