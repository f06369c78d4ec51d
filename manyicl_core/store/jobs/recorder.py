"""What a running job's supervisor writes: every write locks the row and checks the fence."""

import csv
import io
import tempfile
import zipfile
from datetime import timedelta
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from manyicl_core.contract.progress import EvaluationResult, Started, StepMetrics
from manyicl_core.method.encoding import ENCODER_VERSION, template_hash
from manyicl_core.objects import ADAPTER_FILES, ArtifactStore, adapter_key
from manyicl_core.store.files.service import create_result_file
from manyicl_core.store.job_states import ALLOWED, CANCELLED, FAILED, SUCCEEDED
from manyicl_core.store.jobs.leases import Claim, hold
from manyicl_core.store.jobs.service import add_event
from manyicl_core.store.tables import Checkpoint, Job, JobMetrics, JobResult, Model, Project


def record_started(session: Session, claim: Claim, message: Started) -> None:
    """The trainer knows its plan and begins, or goes on."""
    job = hold(session, claim)
    job.plan = message.model_dump(include={"steps", "tokens", "answers", "target_tokens", "dtype"})
    verb = "Training starts" if message.step == 0 else f"Training goes on from step {message.step}"
    add_event(
        session,
        job.id,
        "info",
        f"{verb}: {message.steps} steps, {message.tokens} tokens, {message.answers} answers, {message.dtype}",
    )


def record_step(session: Session, claim: Claim, message: StepMetrics) -> None:
    """One step's metrics; a step that a resumed run repeats is already known and stays."""
    job = hold(session, claim)
    assert job.plan is not None
    values = {
        "step": message.step,
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
    new = session.execute(
        insert(JobMetrics)
        .values(job_id=job.id, step=message.step, values=values)
        .on_conflict_do_nothing()
        .returning(JobMetrics.step)
    ).scalar()
    if new is None:
        return
    steps = job.plan["steps"]
    job.estimated_finish = session.scalar(
        select(func.now() + timedelta(seconds=(steps - message.step) * message.seconds))
    )
    add_event(
        session,
        job.id,
        "info",
        f"Step {message.step}/{steps}: training loss={message.loss:.3f}, "
        f"{message.tokens / message.seconds:.0f} tokens/s",
        "metrics",
        values,
    )


def record_checkpoint(session: Session, claim: Claim, step: int, key: str, files: list[str]) -> None:
    """A checkpoint lies complete in the artifact store."""
    job = hold(session, claim)
    session.execute(insert(Checkpoint).values(job_id=job.id, step=step, key=key, files=files).on_conflict_do_nothing())


def drop_checkpoints(session: Session, job_id: str, keep: int) -> list[tuple[str, list[str]]]:
    """Forget all but the newest ``keep`` checkpoints; gives the keys and file names to delete."""
    rows = session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step.desc()))
    dropped = rows.all()[keep:]
    for row in dropped:
        session.delete(row)
    return [(row.key, row.files) for row in dropped]


def record_adapter(session: Session, claim: Claim, sha256: str, peak_memory_bytes: int) -> None:
    """Training is over and the adapter lies in the artifact store."""
    job = hold(session, claim)
    job.adapter_sha256 = sha256
    job.peak_memory_bytes = peak_memory_bytes
    add_event(session, job.id, "info", f"Training is complete; adapter sha256 {sha256}")


def record_result(session: Session, claim: Claim, message: EvaluationResult) -> None:
    """One line of the result table."""
    job = hold(session, claim)
    values = message.model_dump(exclude={"type"})
    new = session.execute(
        insert(JobResult).values(job_id=job.id, **values).on_conflict_do_nothing().returning(JobResult.k)
    ).scalar()
    if new is None:
        return
    add_event(
        session,
        job.id,
        "info",
        f"Evaluated {message.task} ({message.role}) at k={message.k}: "
        f"{message.metric} {message.base:.3f} -> {message.tuned:.3f}",
        "message",
        values,
    )


def record_success(session: Session, claim: Claim, store: ArtifactStore) -> None:
    """The job is over: its model can be named, its metrics are a file."""
    job = hold(session, claim)
    assert job.adapter_sha256 is not None
    project = session.get_one(Project, job.project_id)
    short = job.id.removeprefix("ftjob-")[:8]
    model = Model(
        id=f"ft:{job.base_model}:{project.name}:{job.suffix or ''}:{short}",
        project_id=job.project_id,
        job_id=job.id,
        base_model=job.base_model,
        adapter_sha256=job.adapter_sha256,
        dataset=job.dataset,
        trained_tokens=job.options["max_sequence_tokens"],
        encoder_version=ENCODER_VERSION,
        template_hash=template_hash(),
    )
    session.add(model)
    job.fine_tuned_model = model.id
    job.result_files = [_metrics_file(session, store, job), _adapter_file(session, store, job)]
    add_event(session, job.id, "info", f"New fine-tuned model created: {model.id}")
    _finish(session, job, SUCCEEDED, "info", "Fine-tuning job successfully completed")


def record_failure(session: Session, claim: Claim, code: str, message: str) -> None:
    """The job is over and failed; ``message`` says what to do next."""
    job = hold(session, claim)
    job.error_code = code
    job.error_message = message
    _finish(session, job, FAILED, "error", f"The job failed ({code}): {message}")


def record_cancelled(session: Session, claim: Claim) -> None:
    """The trainer is stopped, as was asked."""
    _finish(session, hold(session, claim), CANCELLED, "info", "The job was cancelled")


def _finish(session: Session, job: Job, state: str, level: str, message: str) -> None:
    assert state in ALLOWED[job.state]
    finished_at = session.scalar(select(func.now()))
    job.state = state
    job.finished_at = finished_at
    job.estimated_finish = None
    job.lease_expires_at = None
    add_event(session, job.id, level, message)


_COLUMNS = [
    "step",
    "train_loss",
    "train_mean_token_accuracy",
    "learning_rate",
    "gradient_norm",
    "tokens",
    "answers",
    "seconds",
]


def _metrics_file(session: Session, store: ArtifactStore, job: Job) -> str:
    """A CSV of numbers only, as tools that sync OpenAI jobs expect."""
    rows = session.scalars(select(JobMetrics.values).where(JobMetrics.job_id == job.id).order_by(JobMetrics.step))
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.csv"
        path.write_text(text.getvalue(), encoding="utf-8")
        return create_result_file(session, store, job.project_id, path, f"{job.id}-metrics.csv").id


def _adapter_file(session: Session, store: ArtifactStore, job: Job) -> str:
    """The adapter in PEFT's format, as a zip to download."""
    assert job.adapter_sha256 is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name in ADAPTER_FILES:
                archive.writestr(name, store.get(f"{adapter_key(job.adapter_sha256)}/{name}"))
        return create_result_file(session, store, job.project_id, path, f"{job.id}-adapter.zip").id
