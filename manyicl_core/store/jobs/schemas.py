"""Jobs and their events as the OpenAI API shows them, ManyICL's part under ``manyicl``."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from manyicl_core.contract.evidence import ResultWarning
from manyicl_core.store import job_states
from manyicl_core.store.evaluations.schemas import (
    EvaluationError,
    ForgettingObject,
    RecommendationObject,
    ResultObject,
    Verdict,
)
from manyicl_core.store.jobs.results import JobEvaluation, PairedResult
from manyicl_core.store.tables import Job, JobEvent
from manyicl_core.store.tables.events import EventType, Level
from manyicl_core.store.waiting import WaitingFor

JobStatus = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
"""Every status that OpenAI's clients know."""

STATUS_OF: dict[str, JobStatus] = {
    job_states.VALIDATING_FILES: "validating_files",
    job_states.QUEUED: "queued",
    job_states.RUNNING: "running",
    # Holds no worker, and is not over: a client that waits for the end goes on waiting.
    job_states.PAUSED: "queued",
    job_states.SUCCEEDED: "succeeded",
    job_states.FAILED: "failed",
    job_states.CANCELLED: "cancelled",
}


class JobError(BaseModel):
    """Why a job failed, and what to do next."""

    code: str
    message: str
    param: str | None = None


class JobResultObject(BaseModel):
    """One line of the result table: the base model beside the tuned one.

    Metrics are from 0 to 1, with their 95 % intervals; the difference is paired, and known once
    the evaluation is over. ``verdict`` is as in ``ComparisonObject``; the recalls are by label.
    """

    task: str
    family: str
    role: str
    k: int
    metric: str
    base: float
    base_interval: tuple[float, float]
    tuned: float
    tuned_interval: tuple[float, float]
    difference: float | None
    difference_interval: tuple[float, float] | None
    p_value: float | None
    verdict: Verdict | None
    baseline: float | None
    baseline_answer: str | None
    base_warnings: list[ResultWarning]
    tuned_warnings: list[ResultWarning]
    base_recall: dict[str, float | None] | None
    tuned_recall: dict[str, float | None] | None
    queries: int
    draws: int


class ManyiclJob(BaseModel):
    """What OpenAI's object has no place for.

    ``status`` is the job's state, of which OpenAI's clients do not know ``paused``; ``models`` are a
    dedicated job's, by task, and ``task_models`` the ids under which each task is a model. A job succeeds
    though its evaluation fails: ``evaluation_error`` says why.
    """

    status: str
    waiting_for: WaitingFor | None
    options: dict[str, Any]
    plan: dict[str, Any] | None
    peak_memory_bytes: int | None
    weights_sha256: str | None
    models: dict[str, str]
    task_models: dict[str, str]
    evaluation: str | None
    evaluation_status: str | None
    evaluation_error: EvaluationError | None
    results: list[JobResultObject]
    recommendations: list[RecommendationObject]
    forgetting: list[ForgettingObject]


class JobObject(BaseModel):
    """OpenAI's ``FineTuningJob``."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: JobStatus
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    seed: int
    user_provided_suffix: str | None
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    error: JobError | None
    integrations: list[Any]
    metadata: dict[str, str]
    manyicl: ManyiclJob


class EventObject(BaseModel):
    """OpenAI's ``FineTuningJobEvent``."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Level
    type: EventType
    message: str
    data: dict[str, Any] | None


class CheckpointMetrics(BaseModel):
    """OpenAI's metrics of a checkpoint; ``full_valid_*`` are not measured here."""

    step: int
    train_loss: float | None = None
    train_mean_token_accuracy: float | None = None
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None
    full_valid_loss: None = None
    full_valid_mean_token_accuracy: None = None


class ManyiclCheckpoint(BaseModel):
    """``best``: the lowest validation loss so far; ``task``: the one of a dedicated job."""

    task: str | None
    best: bool


class CheckpointObject(BaseModel):
    """OpenAI's ``FineTuningJobCheckpoint``."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: CheckpointMetrics
    manyicl: ManyiclCheckpoint


def job_object(job: Job, evaluation: JobEvaluation | None, waiting: WaitingFor | None) -> JobObject:
    """A row as the API shows it."""
    return JobObject(
        id=job.id,
        created_at=int(job.created_at.timestamp()),
        finished_at=_seconds(job.finished_at),
        estimated_finish=_seconds(job.estimated_finish),
        model=job.start_model or job.base_model,
        fine_tuned_model=job.fine_tuned_model,
        organization_id=job.project_id,
        status=STATUS_OF[job.state],
        training_file=job.training_file,
        validation_file=job.validation_file,
        result_files=job.result_files,
        trained_tokens=job.trained_tokens,
        seed=job.seed,
        user_provided_suffix=job.suffix,
        hyperparameters=job.hyperparameters,
        method={"type": "supervised", "supervised": {"hyperparameters": job.hyperparameters}},
        error=JobError(code=job.error_code, message=job.error_message or "") if job.error_code else None,
        integrations=[],
        metadata=job.labels,
        manyicl=ManyiclJob(
            status=job.state,
            waiting_for=waiting,
            options=job.options,
            plan=job.plan,
            peak_memory_bytes=job.peak_memory_bytes,
            weights_sha256=job.weights_sha256,
            models=job.models,
            task_models=job.task_models,
            evaluation=evaluation.id if evaluation else None,
            evaluation_status=evaluation.status if evaluation else None,
            evaluation_error=evaluation.error if evaluation else None,
            results=[_result_object(pair) for pair in evaluation.results] if evaluation else [],
            recommendations=evaluation.recommendations if evaluation else [],
            forgetting=evaluation.forgetting if evaluation else [],
        ),
    )


def _result_object(pair: PairedResult) -> JobResultObject:
    base, tuned, difference = pair.base, pair.tuned, pair.difference
    return JobResultObject(
        task=base.task,
        family=base.family,
        role=base.role,
        k=base.k,
        metric=base.metric,
        base=base.value,
        base_interval=(base.low, base.high),
        tuned=tuned.value,
        tuned_interval=(tuned.low, tuned.high),
        difference=difference.difference if difference else None,
        difference_interval=(difference.low, difference.high) if difference else None,
        p_value=difference.p_value if difference else None,
        verdict=difference.verdict if difference else None,
        baseline=tuned.baseline.value if tuned.baseline else None,
        baseline_answer=tuned.baseline.answer if tuned.baseline else None,
        base_warnings=base.warnings,
        tuned_warnings=tuned.warnings,
        base_recall=_recall(base),
        tuned_recall=_recall(tuned),
        queries=base.queries,
        draws=base.draws,
    )


def _recall(result: ResultObject) -> dict[str, float | None] | None:
    return None if result.labels is None else {figures.label: figures.recall for figures in result.labels}


def event_object(event: JobEvent) -> EventObject:
    """A row as the API shows it."""
    return EventObject(
        id=event.id,
        created_at=int(event.created_at.timestamp()),
        level=event.level,
        type=event.type,
        message=event.message,
        data=event.data,
    )


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
