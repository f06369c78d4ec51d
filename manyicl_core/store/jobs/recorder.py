"""What a running job's supervisor writes: every write locks the row and checks the fence."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from manyicl_core.contract.progress import Started, StepMetrics
from manyicl_core.method.encoding import ENCODER_VERSION, template_hash
from manyicl_core.method.tasks import Task
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.evaluations.recorder import cancel_with_job
from manyicl_core.store.evaluations.remaining import LATELY, expected_evaluation_seconds, training_seconds
from manyicl_core.store.events import add_event
from manyicl_core.store.job_states import CANCELLED, FAILED, SUCCEEDED
from manyicl_core.store.jobs.checkpoints import final_checkpoint
from manyicl_core.store.jobs.parts import Part, checkpoint_model_id, first_step, model_id
from manyicl_core.store.jobs.result_files import metrics_file, weights_file
from manyicl_core.store.leases import Claim, finish, hold
from manyicl_core.store.tables import Checkpoint, Job, JobMetrics, Model, Project
from manyicl_core.store.tables.events import Level
from manyicl_core.store.tasks.datasets import load_dataset
from manyicl_core.store.tasks.task_models import kept_definitions, task_models
from manyicl_core.store.usage.service import TRAINED_TOKENS, add_usage
from manyicl_core.store.webhooks.outbox import announce

_TOTALS = ("steps", "tokens", "answers", "target_tokens")


def record_started(session: Session, claim: Claim[Job], part: Part, message: Started) -> None:
    """The trainer knows its plan and begins, or goes on.

    A dedicated job's plan grows with each task: the totals are of the tasks so far.
    """
    job = hold(session, claim)
    plan = message.model_dump(include={*_TOTALS, "dtype"})
    if part.task is not None:
        tasks: dict[str, Any] = dict(job.plan["tasks"]) if job.plan else {}
        before = job.plan["steps"] if job.plan else 0
        tasks.setdefault(part.task, {"first_step": before, **{name: plan[name] for name in _TOTALS}})
        plan |= {name: sum(task[name] for task in tasks.values()) for name in _TOTALS} | {"tasks": tasks}
    job.plan = plan
    what = "Training" if part.task is None else f"Training of task {part.task!r}"
    verb = "starts" if message.step == 0 else f"goes on from step {message.step}"
    add_event(
        session,
        job.id,
        "info",
        f"{what} {verb}: {message.steps} steps, {message.tokens} tokens, {message.answers} answers, {message.dtype}",
    )


def record_step(
    session: Session, claim: Claim[Job], part: Part, message: StepMetrics, evaluated_examples: int = 0
) -> None:
    """One step's metrics; a step that a resumed run repeats is already known and stays.

    ``evaluated_examples`` are what the job's evaluation lets through its models when all parts are trained.
    """
    job = hold(session, claim)
    assert job.plan is not None
    step = first_step(job, part) + message.step
    values = {"step": step, **_metrics(message)}
    if part.task is not None:
        values |= {"task": part.task, "task_number": part.number + 1}
    new = session.execute(
        insert(JobMetrics)
        .values(job_id=job.id, step=step, values=values)
        .on_conflict_do_nothing()
        .returning(JobMetrics.step)
    ).scalar()
    if new is None:
        return
    add_usage(session, job.project_id, {TRAINED_TOKENS: message.tokens})
    steps = job.plan["steps"]
    # Parts that have not started are taken to be as long as those that have.
    left = steps * part.count / (part.number + 1) - step
    lately = _lately(session, job.id)
    seconds = training_seconds(left, lately)
    seconds += expected_evaluation_seconds(evaluated_examples, lately, message.answers)
    job.estimated_finish = session.scalar(select(func.now() + timedelta(seconds=seconds)))
    where = "" if part.task is None else f" (task {part.task!r})"
    valid = "" if message.valid_loss is None else f"validation loss={message.valid_loss:.3f}, "
    add_event(
        session,
        job.id,
        "info",
        f"Step {step}/{steps}{where}: training loss={message.loss:.3f}, {valid}"
        f"{message.tokens / message.seconds:.0f} tokens/s",
        "metrics",
        values,
    )


def _lately(session: Session, job_id: str) -> list[float]:
    """The seconds of the last steps."""
    query = select(JobMetrics.values["seconds"].as_float()).where(JobMetrics.job_id == job_id)
    return list(session.scalars(query.order_by(JobMetrics.step.desc()).limit(LATELY)))


def _metrics(message: StepMetrics) -> dict[str, Any]:
    """A step's numbers under OpenAI's names, and ours where it has none."""
    values: dict[str, Any] = {
        "train_loss": message.loss,
        "train_mean_token_accuracy": message.token_accuracy,
        "learning_rate": message.learning_rate,
        "gradient_norm": message.gradient_norm,
        "tokens": message.tokens,
        "answers": message.answers,
        "seconds": message.seconds,
        "tokens_per_second": message.tokens / message.seconds,
        "answers_per_second": message.answers / message.seconds,
        "loss_by_answer": {str(key): value for key, value in message.loss_by_answer.items()},
        "accuracy_by_answer": {str(key): value for key, value in message.accuracy_by_answer.items()},
    }
    if message.valid_loss is not None:
        values |= {"valid_loss": message.valid_loss, "valid_mean_token_accuracy": message.valid_token_accuracy}
    return values


def record_success(session: Session, claim: Claim[Job], store: ArtifactStore | None, parts: Sequence[Part]) -> None:
    """The job is over: its models can be named, its metrics and its weights are files.

    Args:
        session: writes.
        claim: the right to.
        store: where the files go; None: it does not take them, and the models are all that is left.
        parts: all that the job trained.
    """
    job = hold(session, claim)
    project = session.get_one(Project, job.project_id)
    tasks = None if store is None else load_dataset(store, job.dataset)
    archives = []
    for part in parts:
        final = final_checkpoint(session, job.id, part.task)
        assert final is not None, "a job succeeds when all its parts are trained"
        name = model_id(job, project.name, part.task)
        query = select(Checkpoint).where(
            Checkpoint.job_id == job.id, Checkpoint.task.is_not_distinct_from(part.task), Checkpoint.final.is_(False)
        )
        for checkpoint in session.scalars(query):
            session.add(_model(job, checkpoint_model_id(name, checkpoint.step), checkpoint, checkpoint.step, tasks))
        model = _model(job, name, final, None, tasks)
        session.add(model)
        if store is not None:
            of_tasks = {task.definition.name: task.id for task in task_models(store, model)}
            job.task_models = {**job.task_models, **of_tasks}
        add_event(session, job.id, "info", f"New fine-tuned model created: {name}")
        if store is not None:
            archives.append(weights_file(session, store, job, final))
        if part.task is not None:
            job.models = {**job.models, part.task: name}
        if part.number == 0:
            job.fine_tuned_model = name
    if store is not None:
        job.result_files = [metrics_file(session, store, job), *archives]
    _finish(session, job, SUCCEEDED, "info", "Fine-tuning job successfully completed")


def _model(job: Job, name: str, checkpoint: Checkpoint, step: int | None, tasks: list[Task] | None) -> Model:
    return Model(
        id=name,
        project_id=job.project_id,
        job_id=job.id,
        task=checkpoint.task,
        step=step,
        base_model=job.base_model,
        adaptation=job.options["adaptation"],
        weights_sha256=checkpoint.weights_sha256,
        dataset=job.dataset,
        tasks=None if tasks is None else kept_definitions(tasks, checkpoint.task),
        trained_tokens=job.options["max_sequence_tokens"],
        encoder_version=ENCODER_VERSION,
        template_hash=template_hash(),
    )


def record_failure(session: Session, claim: Claim[Job], code: str, message: str) -> None:
    """The job is over and failed; ``message`` says what to do next."""
    job = hold(session, claim)
    job.error_code = code
    job.error_message = message
    _finish(session, job, FAILED, "error", f"The job failed ({code}): {message}")


def record_cancelled(session: Session, claim: Claim[Job]) -> None:
    """The trainer is stopped, as was asked."""
    job = hold(session, claim)
    cancel_with_job(session, job.id)
    _finish(session, job, CANCELLED, "info", "The job was cancelled")


def _finish(session: Session, job: Job, state: str, level: Level, message: str) -> None:
    finish(session, job, state)
    announce(session, job.project_id, f"fine_tuning.job.{state}", job.id)
    job.estimated_finish = None
    add_event(session, job.id, level, message)
