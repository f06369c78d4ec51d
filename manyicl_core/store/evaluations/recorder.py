"""What a running evaluation's supervisor writes: every write locks the held row and checks the fence.

The claim is the evaluation's own, or that of the job whose evaluation it is.
"""

import json
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from manyicl_core.contract.progress import CurveResult, EvaluationResult, PlainTextResult
from manyicl_core.method.shot_warnings import shots_warnings
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.evaluations.plan import evaluated_weights, planned_points, repetitions
from manyicl_core.store.evaluations.predictions import prediction_lines
from manyicl_core.store.evaluations.remaining import evaluation_seconds
from manyicl_core.store.evaluations.reports import read_report
from manyicl_core.store.evaluations.schemas import ComparisonObject, MeanObject, RecommendationObject
from manyicl_core.store.events import add_evaluation_event, add_event
from manyicl_core.store.files.service import create_result_file
from manyicl_core.store.job_states import CANCELLED, FAILED, FINAL, SUCCEEDED
from manyicl_core.store.leases import Claim, finish, hold
from manyicl_core.store.tables import Evaluation, EvaluationCurve, Job, Leased, PlainText
from manyicl_core.store.tables import EvaluationResult as ResultRow
from manyicl_core.store.tables.events import Level


def record_started(session: Session, claim: Claim[Leased], evaluation_id: str, left: int) -> None:
    """A process begins to measure what is left."""
    evaluation = _held(session, claim, evaluation_id)
    _tell(session, evaluation, f"Evaluation {evaluation.id} starts: {left} results to measure", {"left": left})


def record_result(
    session: Session, claim: Claim[Leased], evaluation_id: str, message: EvaluationResult, items_key: str
) -> None:
    """One point; its items lie in the artifact store."""
    evaluation = _held(session, claim, evaluation_id)
    values = message.model_dump(exclude={"type", "items_file"})
    row = insert(ResultRow).values(evaluation_id=evaluation.id, items_key=items_key, **values)
    if session.execute(row.on_conflict_do_nothing().returning(ResultRow.k)).scalar() is None:
        return
    _forget_losses(session, claim)
    _expect_end(session, evaluation)
    evidence = message.evidence
    text = (
        f"Evaluated {message.task} ({message.role}) at k={message.k}: {message.metric} "
        f"{message.value:.3f} [{message.low:.3f}, {message.high:.3f}], {message.model}; "
        f"always the most frequent answer: {evidence.baseline.value:.3f}"
    )
    data = message.model_dump(exclude={"items_file", "evidence"})
    data |= evidence.model_dump(include={"baseline", "distinct_answers", "warnings"})
    _tell(session, evaluation, text, data)
    if evidence.warnings and not _is_yardstick(evaluation, message.model):
        told = "; ".join(warning.message for warning in evidence.warnings)
        _tell(session, evaluation, f"{message.model} at {message.task}, k={message.k}: {told}", data, level="warn")
    for warned in shots_warnings(message.k, message.shots):
        text = f"{message.task} at k={message.k}, {message.model}: {warned['message']}"
        _tell(session, evaluation, text, {"code": warned["code"], "task": message.task, "k": message.k}, "warn")


def record_curve(session: Session, claim: Claim[Leased], evaluation_id: str, message: CurveResult) -> None:
    """One model's exact-match curve of one task."""
    evaluation = _held(session, claim, evaluation_id)
    row = insert(EvaluationCurve).values(evaluation_id=evaluation.id, **message.model_dump(exclude={"type"}))
    if session.execute(row.on_conflict_do_nothing().returning(EvaluationCurve.task)).scalar() is not None:
        _forget_losses(session, claim)
        text = f"Evaluated {message.task} at every k up to {len(message.exact_match) - 1}, {message.model}"
        _tell(session, evaluation, text, message.model_dump())


def record_plain_text(session: Session, claim: Claim[Leased], evaluation_id: str, message: PlainTextResult) -> None:
    """One model's cross-entropy on the plain text."""
    evaluation = _held(session, claim, evaluation_id)
    row = insert(PlainText).values(evaluation_id=evaluation.id, **message.model_dump(exclude={"type"}))
    if session.execute(row.on_conflict_do_nothing().returning(PlainText.model)).scalar() is not None:
        _forget_losses(session, claim)
        text = f"Plain text: cross-entropy {message.cross_entropy:.3f} nats a token, {message.model}"
        _tell(session, evaluation, text, message.model_dump())


def record_success(
    session: Session,
    claim: Claim[Leased],
    evaluation_id: str,
    store: ArtifactStore,
    means: Sequence[MeanObject],
    comparisons: Sequence[ComparisonObject],
    recommendations: Sequence[RecommendationObject],
) -> None:
    """All is measured: the comparisons are known, the predictions are a file."""
    evaluation = _held(session, claim, evaluation_id)
    evaluation.means = [mean.model_dump() for mean in means]
    evaluation.comparisons = [comparison.model_dump() for comparison in comparisons]
    evaluation.recommendations = [recommendation.model_dump() for recommendation in recommendations]
    if evaluation.tasks:
        evaluation.result_files = [_predictions_file(session, store, evaluation)]
    for recommendation in recommendations:
        if recommendation.task is None and not _is_yardstick(evaluation, recommendation.model):
            _tell_recommendation(session, evaluation, recommendation)
    finish(session, evaluation, SUCCEEDED)
    _tell(session, evaluation, "Evaluation successfully completed", None)


def record_failure(session: Session, claim: Claim[Evaluation], code: str, message: str) -> None:
    """The evaluation is over and failed; ``message`` says what to do next."""
    _fail(session, hold(session, claim), code, message)


def record_cancelled(session: Session, claim: Claim[Evaluation]) -> None:
    """The process is stopped, as was asked."""
    _cancel(session, hold(session, claim))


def record_failure_in_job(session: Session, claim: Claim[Leased], evaluation_id: str, code: str, message: str) -> None:
    """The evaluation of a job has failed, which keeps its models: tell there how it can be repeated."""
    evaluation = _held(session, claim, evaluation_id)
    _fail(session, evaluation, code, message)
    first, *others = repetitions(evaluation)
    text = (
        f"The evaluation {evaluation.id} failed ({code}): {message}. The model is kept. To measure it again, "
        f"POST /v1/evaluations with {json.dumps(first, ensure_ascii=False)}"
    )
    if others:
        text += f", and for the models of the other {len(others)} tasks with what this event's data has under `repeat`"
    data = {"evaluation": evaluation.id, "code": code, "repeat": [first, *others]}
    add_event(session, claim.id, "warn", text, "message", data)


def cancel_with_job(session: Session, job_id: str) -> None:
    """A job that is cancelled takes its evaluation along; the caller holds the job."""
    evaluation = session.scalar(select(Evaluation).where(Evaluation.job_id == job_id).with_for_update())
    if evaluation is not None and evaluation.state not in FINAL:
        _cancel(session, evaluation)


def _held(session: Session, claim: Claim[Leased], evaluation_id: str) -> Evaluation:
    """The evaluation for which ``claim`` may write."""
    row = hold(session, claim)
    if isinstance(row, Evaluation):
        assert row.id == evaluation_id
        return row
    evaluation = session.get_one(Evaluation, evaluation_id)
    assert evaluation.job_id == row.id
    return evaluation


def _expect_end(session: Session, evaluation: Evaluation) -> None:
    """The job that the evaluation ends, if it ends one, is over when the rest is measured at the same pace."""
    if evaluation.job_id is None:
        return
    rows = session.scalars(select(ResultRow).where(ResultRow.evaluation_id == evaluation.id)).all()
    measured = {(row.model, row.task, row.k) for row in rows}
    left = [p.k for p in planned_points(evaluation) if (p.model, p.task, p.k) not in measured]
    options = evaluation.options
    done = [(row.k, row.seconds) for row in rows]
    seconds = evaluation_seconds(done, left, options["queries"], options["draws"])
    job = session.get_one(Job, evaluation.job_id)
    job.estimated_finish = session.scalar(select(func.now() + timedelta(seconds=seconds)))


def _forget_losses(session: Session, claim: Claim[Leased]) -> None:
    """Something comes of the attempts: what was lost before does not count against the next."""
    hold(session, claim).infrastructure_failures = 0


def _fail(session: Session, evaluation: Evaluation, code: str, message: str) -> None:
    evaluation.error_code = code
    evaluation.error_message = message
    finish(session, evaluation, FAILED)
    add_evaluation_event(session, evaluation.id, "error", f"The evaluation failed ({code}): {message}")


def _cancel(session: Session, evaluation: Evaluation) -> None:
    finish(session, evaluation, CANCELLED)
    add_evaluation_event(session, evaluation.id, "info", "The evaluation was cancelled")


def _is_yardstick(evaluation: Evaluation, model: str) -> bool:
    """Whether ``model`` is the base model that others are compared with: nobody need be warned of it."""
    first, *others = evaluated_weights(evaluation)
    return bool(others) and first.name == model and first.weights_sha256 is None


def _tell_recommendation(session: Session, evaluation: Evaluation, recommendation: RecommendationObject) -> None:
    k = "none" if recommendation.k is None else recommendation.k
    tasks = "1 task" if recommendation.tasks == 1 else f"{recommendation.tasks} tasks"
    text = f"Recommended k over {tasks}, {recommendation.model}: {k}; {recommendation.reason}"
    level: Level = "warn" if recommendation.k is None else "info"
    _tell(session, evaluation, text, recommendation.model_dump(), level)


def _tell(
    session: Session, evaluation: Evaluation, message: str, data: dict[str, object] | None, level: Level = "info"
) -> None:
    """Add to the evaluation's story, and to that of its job: who follows a job sees how it is evaluated."""
    add_evaluation_event(session, evaluation.id, level, message, data)
    if evaluation.job_id is not None:
        add_event(session, evaluation.job_id, level, message, "message", data)


def _predictions_file(session: Session, store: ArtifactStore, evaluation: Evaluation) -> str:
    """All predictions as one file to download."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.jsonl"
        with path.open("wb") as file:
            file.writelines(prediction_lines(store, read_report(session, evaluation).results))
        name = f"{evaluation.id}-predictions.jsonl"
        return create_result_file(session, store, evaluation.project_id, path, name).id
