"""A job's checkpoints: kept while it trains, and its best and last ones for good."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from manyicl_core.contract.progress import CheckpointSaved, Trained
from manyicl_core.errors import NotFound
from manyicl_core.ids import new_id
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.events import add_event
from manyicl_core.store.jobs.parts import Part, checkpoint_model_id, first_step, model_id
from manyicl_core.store.jobs.schemas import CheckpointMetrics, CheckpointObject, ManyiclCheckpoint
from manyicl_core.store.jobs.service import get_job
from manyicl_core.store.leases import Claim, hold
from manyicl_core.store.models.weights import delete_unreferenced
from manyicl_core.store.pages import Page, fetch_page
from manyicl_core.store.tables import Checkpoint, Job, JobMetrics, Model, Project
from manyicl_core.store.tasks.datasets import delete_unreferenced_dataset

KEPT = 2
"""The newest so many are kept while a job trains, and the best one."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Objects that no row names any more."""

    key: str
    files: list[str]


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """What a job that ends badly leaves in the artifact store: files of checkpoints, hashes of weights, its data."""

    dropped: Sequence[Dropped] = ()
    hashes: frozenset[str] = frozenset()
    dataset: str | None = None

    def delete(self, store: ArtifactStore) -> None:
        """Delete it, after the transaction that made it so; what others refer to stays."""
        delete_dropped(store, self.dropped)
        delete_unreferenced(store, set(self.hashes))
        if self.dataset is not None:
            delete_unreferenced_dataset(store, self.dataset)


@dataclass(frozen=True, slots=True)
class Restorable:
    """Where a part's training goes on from; ``best`` is None where it is ``latest`` or nothing."""

    latest: Checkpoint | None
    best: Checkpoint | None


def record_checkpoint(
    session: Session, claim: Claim[Job], part: Part, message: CheckpointSaved, key: str, files: list[str], sha256: str
) -> list[Dropped]:
    """A checkpoint lies complete under ``key``; gives what older ones leave behind."""
    job = hold(session, claim)
    recorded = session.execute(
        insert(Checkpoint)
        .values(
            id=new_id("ftckpt_"),
            job_id=job.id,
            step=first_step(job, part) + message.step,
            task=part.task,
            weights_sha256=sha256,
            best=message.best,
            final=False,
            key=key,
            files=files,
        )
        .on_conflict_do_nothing()
        .returning(Checkpoint.id)
    ).scalar()
    if recorded is not None:  # something comes of the attempts: what was lost before does not count against the next
        job.infrastructure_failures = 0
    rows = _restorable_rows(session, job.id, part.task)
    best = _best(rows)
    return _drop(session, [row for row in rows[KEPT:] if row is not best])


def is_recorded(session: Session, key: str) -> bool:
    """Whether a checkpoint lies under ``key``."""
    return session.scalar(select(Checkpoint.id).where(Checkpoint.key == key)) is not None


def restorable(session: Session, job_id: str, task: str | None) -> Restorable:
    """What an earlier attempt at the part has left."""
    rows = _restorable_rows(session, job_id, task)
    latest = rows[0] if rows else None
    best = _best(rows)
    return Restorable(latest, None if best is latest else best)


def best_checkpoint(session: Session, job_id: str, task: str | None) -> Checkpoint | None:
    """The one with the lowest validation loss of a part in training."""
    return _best(_restorable_rows(session, job_id, task))


def final_checkpoint(session: Session, job_id: str, task: str | None) -> Checkpoint | None:
    """The end of a part's training, once it is trained."""
    return session.scalar(
        select(Checkpoint).where(
            Checkpoint.job_id == job_id, Checkpoint.task.is_not_distinct_from(task), Checkpoint.final
        )
    )


def trained_parts(session: Session, job_id: str) -> list[Part]:
    """The parts of a job that are trained, in their order."""
    query = select(Checkpoint.task).where(Checkpoint.job_id == job_id, Checkpoint.final).order_by(Checkpoint.step)
    tasks = session.scalars(query).all()
    return [Part(number, len(tasks), task) for number, task in enumerate(tasks)]


def record_trained(session: Session, claim: Claim[Job], part: Part, message: Trained, sha256: str) -> list[Dropped]:
    """A part is trained: its last step and its best one stay as weights, which lie in the store."""
    job = hold(session, claim)
    step = first_step(job, part) + message.step
    rows = _restorable_rows(session, job.id, part.task)
    best = _best(rows)
    dropped = [Dropped(row.key, row.files) for row in rows if row.key is not None]
    for row in rows:
        if row is best:
            row.key, row.files = None, []
        elif row.step != step:
            session.delete(row)
    session.flush()
    last = {"weights_sha256": sha256, "final": True, "key": None, "files": []}
    session.execute(
        insert(Checkpoint)
        .values(id=new_id("ftckpt_"), job_id=job.id, step=step, task=part.task, best=False, **last)
        .on_conflict_do_update(index_elements=["job_id", "step"], set_=last)
    )
    job.infrastructure_failures = 0
    if part.number == 0:
        job.weights_sha256 = sha256
    job.peak_memory_bytes = max(message.peak_memory_bytes, job.peak_memory_bytes or 0)
    tokens = func.sum(JobMetrics.values["tokens"].as_string().cast(BigInteger))
    job.trained_tokens = session.scalar(select(tokens).where(JobMetrics.job_id == job.id))
    what = "Training" if part.task is None else f"Training of task {part.task!r}"
    add_event(session, job.id, "info", f"{what} is complete; weights of step {step}, sha256 {sha256}")
    return dropped


def delete_dropped(store: ArtifactStore, dropped: Sequence[Dropped]) -> None:
    """Delete objects, after the transaction that dropped their rows: no row ever points at nothing."""
    for checkpoint in dropped:
        for name in checkpoint.files:
            store.delete(f"{checkpoint.key}/{name}")


def forget_checkpoints(session: Session, job_id: str) -> LeftBehind:
    """The job has failed or was cancelled; gives what is to be deleted now."""
    rows = session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id)).all()
    hashes = {row.weights_sha256 for row in rows}
    job = session.get_one(Job, job_id)
    if job.start_sha256 is not None:
        hashes.add(job.start_sha256)
    return LeftBehind(_drop(session, rows), frozenset(hashes), job.dataset)


def list_checkpoints(session: Session, project_id: str, job_id: str, after: str | None, limit: int) -> Page[Checkpoint]:
    """A page of a job's checkpoints, newest first."""
    job = get_job(session, project_id, job_id)
    cursor = None
    if after is not None:
        step = session.scalar(select(Checkpoint.step).where(Checkpoint.id == after, Checkpoint.job_id == job.id))
        if step is None:
            raise NotFound("checkpoint", after, "after")
        cursor = (step,)
    return fetch_page(session, select(Checkpoint).where(Checkpoint.job_id == job.id), (Checkpoint.step,), cursor, limit)


def checkpoint_objects(session: Session, rows: Sequence[Checkpoint]) -> list[CheckpointObject]:
    """Rows of one job as the API shows them, each with its step's metrics."""
    if not rows:
        return []
    job = session.get_one(Job, rows[0].job_id)
    project = session.get_one(Project, job.project_id)
    query = select(JobMetrics).where(JobMetrics.job_id == job.id, JobMetrics.step.in_([row.step for row in rows]))
    metrics = {step.step: step.values for step in session.scalars(query)}
    made = select(Model.task, Model.step, Model.id).where(Model.job_id == job.id)
    ids = {(task, step): id_ for task, step, id_ in session.execute(made)}
    objects = []
    for row in rows:
        # As at OpenAI: the last checkpoint is the job's model.
        step = None if row.final else row.step
        # Models keep their ids when the project is renamed. While the job trains there are none yet.
        name = ids.get((row.task, step)) or _coming_id(job, project.name, row.task, step)
        objects.append(
            CheckpointObject(
                id=row.id,
                created_at=int(row.created_at.timestamp()),
                fine_tuned_model_checkpoint=name,
                fine_tuning_job_id=job.id,
                step_number=row.step,
                metrics=CheckpointMetrics.model_validate(metrics[row.step]),
                manyicl=ManyiclCheckpoint(task=row.task, best=row.best),
            )
        )
    return objects


def _coming_id(job: Job, project_name: str, task: str | None, step: int | None) -> str:
    """The id that a checkpoint's model gets when its job succeeds."""
    model = model_id(job, project_name, task)
    return model if step is None else checkpoint_model_id(model, step)


def _restorable_rows(session: Session, job_id: str, task: str | None) -> list[Checkpoint]:
    """Newest first."""
    query = select(Checkpoint).where(
        Checkpoint.job_id == job_id, Checkpoint.task.is_not_distinct_from(task), Checkpoint.key.is_not(None)
    )
    return list(session.scalars(query.order_by(Checkpoint.step.desc())))


def _best(newest_first: list[Checkpoint]) -> Checkpoint | None:
    """Each best one beats those before it."""
    return next((row for row in newest_first if row.best), None)


def _drop(session: Session, rows: Sequence[Checkpoint]) -> list[Dropped]:
    for row in rows:
        session.delete(row)
    return [Dropped(row.key, row.files) for row in rows if row.key is not None]
