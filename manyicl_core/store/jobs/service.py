"""Create and find jobs: what the api asks for."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from manyicl_core.base_models.catalog import context_length
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.errors import InvalidRequest, NotFound
from manyicl_core.ids import new_id
from manyicl_core.method.dataset import InvalidDataset
from manyicl_core.method.leaks import NearLeak, near_leaks
from manyicl_core.method.task_building import check_fits
from manyicl_core.method.tasks import Task
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.events import News, add_event, find_news
from manyicl_core.store.job_states import QUEUED, VALIDATING_FILES
from manyicl_core.store.jobs.options import CreateJob, resolved_hyperparameters
from manyicl_core.store.jobs.results import job_evaluations
from manyicl_core.store.jobs.schemas import JobObject, event_object, job_object
from manyicl_core.store.jobs.start import Start, find_start, hold_start
from manyicl_core.store.jobs.validation import validation_of
from manyicl_core.store.pages import Page, fetch_created, fetch_page
from manyicl_core.store.quotas.service import admit_job, admit_training, lock_project
from manyicl_core.store.tables import Job, JobEvent
from manyicl_core.store.tasks.datasets import kept_dataset
from manyicl_core.store.tasks.files import read_tasks
from manyicl_core.store.waiting import tell_wait, waiting_for

_SHOWN_LEAKS = 10


@dataclass(frozen=True, slots=True)
class CheckedJob:
    """A job that may be asked for.

    Attributes:
        job: its row, not stored, and without a dataset.
        start: what it starts from.
        unvalidated: why the loss on its validation file is not measured, where it has one.
    """

    job: Job
    tasks: list[Task]
    start: Start
    unvalidated: str | None


def create_job(session: Session, store: ArtifactStore, project_id: str, request: CreateJob) -> Job:
    """Check everything and put a job into the queue.

    Raises:
        InvalidRequest: a field or a line of a file is wrong.
        NotFound: a file or the model does not exist.
        Conflict: the model to go on from was trained with another encoder.
        Unavailable: the base model is not on this machine.
        QuotaExceeded: too many jobs wait, or the project has trained its tokens of the day.
    """
    _admit(session, project_id, request)
    checked = check_request(session, store, project_id, request)
    job, tasks, start = checked.job, checked.tasks, checked.start
    try:
        check_fits(tasks, load_encoder(start.folder), start.options.max_sequence_tokens, context_length(start.base))
    except InvalidDataset as error:
        raise InvalidRequest(str(error), "training_file", "example_too_long") from error
    leaks = near_leaks(tasks)
    with kept_dataset(session, store, tasks) as job.dataset:
        # All that is slow is done: others wait from here to the commit.
        hold_start(session, project_id, request.model, start)
        lock_project(session, project_id)
        _admit(session, project_id, request)
        session.add(job)
        session.flush()
    add_event(session, job.id, "info", f"Created fine-tuning job {job.id}")
    trained = sum(task.definition.role == "train" for task in tasks)
    add_event(
        session, job.id, "info", f"Files are valid: {trained} tasks to train, {len(tasks) - trained} held out; queued"
    )
    if checked.unvalidated is not None:
        add_event(session, job.id, "warn", f"The loss on the validation file is not measured: {checked.unvalidated}")
    _warn_of_near_leaks(session, job.id, leaks)
    job.state = QUEUED
    session.flush()
    tell_wait(session, job)
    return job


def _admit(session: Session, project_id: str, request: CreateJob) -> None:
    admit_job(session, project_id)
    admit_training(session, project_id, request.manyicl.token_budget)


def check_request(session: Session, store: ArtifactStore, project_id: str, request: CreateJob) -> CheckedJob:
    """Check everything but whether the examples fit; nothing is stored or locked.

    Raises:
        As ``create_job``.
    """
    start = find_start(session, store, project_id, request)
    tasks = _read_tasks(session, store, project_id, request)
    validation, unvalidated = validation_of(start, tasks)
    options = start.options.model_copy(update={"validation": validation})
    job = Job(
        id=new_id("ftjob-"),
        project_id=project_id,
        state=VALIDATING_FILES,
        base_model=start.base.id,
        start_model=request.model if start.sha256 else None,
        start_sha256=start.sha256,
        suffix=request.suffix,
        seed=request.seed if request.seed is not None else secrets.randbelow(2**31),
        training_file=request.training_file,
        validation_file=request.validation_file,
        hyperparameters=resolved_hyperparameters(request),
        options=options.model_dump(mode="json", exclude={"tasks"}),
        labels=request.metadata or {},
    )
    return CheckedJob(job, tasks, start, unvalidated)


def _read_tasks(session: Session, store: ArtifactStore, project_id: str, request: CreateJob) -> list[Task]:
    if request.validation_file is None and "evaluation" in request.manyicl.model_fields_set:
        raise InvalidRequest(
            "an evaluation needs queries; upload them as a file and name it in validation_file", "validation_file"
        )
    tasks = read_tasks(
        session, store, project_id, request.training_file, request.validation_file, request.manyicl.tasks
    )
    if not any(task.definition.role == "train" for task in tasks):
        raise InvalidRequest("every task is held out; give at least one task the role 'train'", "manyicl.tasks")
    return tasks


def _warn_of_near_leaks(session: Session, job_id: str, leaks: list[NearLeak]) -> None:
    for leak in leaks[:_SHOWN_LEAKS]:
        add_event(session, job_id, "warn", str(leak), data=asdict(leak))
    if leaks:
        add_event(
            session,
            job_id,
            "warn",
            f"Near leaks: {len(leaks)} tested examples share a run of words with a trained one "
            f"({min(len(leaks), _SHOWN_LEAKS)} are listed); where they are copies, remove them from one of the files, "
            "or the results flatter the model",
        )


def get_job(session: Session, project_id: str, job_id: str) -> Job:
    """One job of the project.

    Raises:
        NotFound: the project has no such job.
    """
    job = session.scalar(select(Job).where(Job.id == job_id, Job.project_id == project_id))
    if job is None:
        raise NotFound("fine-tuning job", job_id)
    return job


def list_jobs(
    session: Session, project_id: str, after: str | None, limit: int, metadata: dict[str, str] | None
) -> Page[Job]:
    """A page of jobs, newest first; ``metadata`` keeps those that have all its pairs, or, empty, none at all."""
    query = select(Job).where(Job.project_id == project_id)
    if metadata is not None:
        query = query.where(Job.labels.contains(metadata) if metadata else Job.labels == {})
    return fetch_created(session, query, Job.project_id, project_id, after, limit, "fine-tuning job")


def show_job(session: Session, job: Job) -> JobObject:
    """A job as the API shows it: with what it waits for, and what its evaluation has found."""
    [shown] = show_jobs(session, [job])
    return shown


def show_jobs(session: Session, jobs: Sequence[Job]) -> list[JobObject]:
    """As ``show_job``, with a few queries for all of them."""
    evaluations, waiting = job_evaluations(session, jobs), waiting_for(session, jobs)
    return [job_object(job, evaluations.get(job.id), waiting.get(job.id)) for job in jobs]


def list_events(session: Session, project_id: str, job_id: str, after: str | None, limit: int) -> Page[JobEvent]:
    """A page of a job's events, newest first."""
    job = get_job(session, project_id, job_id)
    cursor = None if after is None else (event_number(session, job.id, after),)
    query = select(JobEvent).where(JobEvent.job_id == job.id)
    return fetch_page(session, query, (JobEvent.number,), cursor, limit)


def event_number(session: Session, job_id: str, event_id: str) -> int:
    """The place of a job's event among all events.

    Raises:
        NotFound: the job has no such event.
    """
    number = session.scalar(select(JobEvent.number).where(JobEvent.id == event_id, JobEvent.job_id == job_id))
    if number is None:
        raise NotFound("event", event_id, "after")
    return number


def job_news(session: Session, told: Mapping[str, int]) -> dict[str, News]:
    """What is new in the stories of jobs, behind the events with the given numbers."""
    return find_news(session, Job, JobEvent, JobEvent.job_id, event_object, told)
