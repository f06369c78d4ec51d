"""What evaluations have measured so far."""

from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from manyicl_core.store.evaluations.plan import evaluated_weights
from manyicl_core.store.tables import Evaluation, EvaluationCurve, EvaluationResult, PlainText


@dataclass
class Report:
    """The rows of one evaluation, by role, task, k and model, in the evaluation's own order."""

    results: list[EvaluationResult] = field(default_factory=list)
    curves: list[EvaluationCurve] = field(default_factory=list)
    plain_text: list[PlainText] = field(default_factory=list)

    @property
    def measured(self) -> int:
        """How many results there are."""
        return len(self.results) + len(self.curves) + len(self.plain_text)


def read_reports(session: Session, evaluations: list[Evaluation]) -> dict[str, Report]:
    """The reports of several evaluations, by id."""
    reports = {evaluation.id: Report() for evaluation in evaluations}
    ids = [evaluation.id for evaluation in evaluations if evaluation.started_at is not None]
    if not ids:  # nothing is measured
        return reports
    for result in session.scalars(select(EvaluationResult).where(EvaluationResult.evaluation_id.in_(ids))):
        reports[result.evaluation_id].results.append(result)
    for curve in session.scalars(select(EvaluationCurve).where(EvaluationCurve.evaluation_id.in_(ids))):
        reports[curve.evaluation_id].curves.append(curve)
    for text in session.scalars(select(PlainText).where(PlainText.evaluation_id.in_(ids))):
        reports[text.evaluation_id].plain_text.append(text)
    for evaluation in evaluations:
        _sort(reports[evaluation.id], evaluation)
    return reports


def read_report(session: Session, evaluation: Evaluation) -> Report:
    """The report of one evaluation."""
    return read_reports(session, [evaluation])[evaluation.id]


def _sort(report: Report, evaluation: Evaluation) -> None:
    models = {weights.name: place for place, weights in enumerate(evaluated_weights(evaluation))}
    tasks = {task: place for place, task in enumerate(evaluation.tasks)}
    report.results.sort(key=lambda row: (row.role == "heldout", tasks[row.task], row.k, models[row.model]))
    report.curves.sort(key=lambda row: (tasks[row.task], models[row.model]))
    report.plain_text.sort(key=lambda row: models[row.model])
