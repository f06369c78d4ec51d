"""Fine-tuning jobs: create, plan, list, retrieve, cancel, events, checkpoints."""

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.creation import OnceDep
from api.dependencies import ArtifactsDep, ReaderDep, WriterDep
from api.routes.lists import ListObject, list_object
from manyicl_core.store.hints import RUN_JOB, ask_for_measurement, publish_hint
from manyicl_core.store.jobs import checkpoints, planning, service
from manyicl_core.store.jobs.options import CreateJob
from manyicl_core.store.jobs.plan_schemas import PlanObject
from manyicl_core.store.jobs.planning import JobPlan
from manyicl_core.store.jobs.results import job_evaluation, job_evaluations
from manyicl_core.store.jobs.schemas import CheckpointObject, EventObject, JobObject, event_object, job_object
from manyicl_core.store.models.weights import delete_unreferenced
from manyicl_core.store.session import transaction

MEASURING_SECONDS = 45.0
_POLL_SECONDS = 0.5

router = APIRouter(prefix="/fine_tuning/jobs", tags=["fine-tuning"])

_Limit = Annotated[int, Query(ge=1, le=1000)]


@router.post("")
def create_job(caller: WriterDep, artifacts: ArtifactsDep, once: OnceDep, body: CreateJob) -> JobObject:
    """Check files and options, and queue a job."""

    def create(session: Session) -> JobObject:
        return job_object(service.create_job(session, artifacts, caller.project_id, body), None)

    job = once.create(body, create)
    # After the commit: a worker that gets the hint must find the row.
    publish_hint(RUN_JOB, job.id)
    return job


@router.post("/plan")
async def plan_job(caller: ReaderDep, artifacts: ArtifactsDep, body: CreateJob) -> PlanObject:
    """Tell what a job would do and take; nothing is stored or queued."""

    def count() -> JobPlan:
        with transaction() as session:
            return planning.plan_job(session, artifacts, caller.project_id, body)

    def estimated() -> PlanObject | None:
        with transaction() as session:
            return plan.estimated(session)

    plan = await run_in_threadpool(count)
    if (answer := await run_in_threadpool(estimated)) is not None:
        return answer
    if not await run_in_threadpool(ask_for_measurement, plan.plan.model, plan.lora):
        return plan.without_estimate("no worker answers; start one with `manyicl worker` and plan again")
    # Waiting here holds no thread and no connection.
    deadline = time.monotonic() + MEASURING_SECONDS
    while time.monotonic() < deadline:
        await asyncio.sleep(_POLL_SECONDS)
        if (answer := await run_in_threadpool(estimated)) is not None:
            return answer
    return plan.without_estimate("the worker is busy, or still measures how fast it trains; plan again in a minute")


@router.get("")
def list_jobs(
    request: Request, caller: ReaderDep, after: str | None = None, limit: _Limit = 20
) -> ListObject[JobObject]:
    """The project's jobs, newest first; ``metadata[key]=value`` filters."""
    pairs = request.query_params.multi_items()
    metadata = {
        name.removeprefix("metadata[").removesuffix("]"): value
        for name, value in pairs
        if name.startswith("metadata[") and name.endswith("]")
    }
    with transaction() as session:
        page = service.list_jobs(session, caller.project_id, after, limit, metadata or None)
        evaluations = job_evaluations(session, [job.id for job in page.rows])
    return list_object([job_object(job, evaluations.get(job.id)) for job in page.rows], page.has_more)


@router.get("/{job_id}")
def retrieve_job(caller: ReaderDep, job_id: str) -> JobObject:
    """One job."""
    with transaction() as session:
        job = service.get_job(session, caller.project_id, job_id)
        evaluation = job_evaluation(session, job.id)
    return job_object(job, evaluation)


@router.post("/{job_id}/cancel")
def cancel_job(caller: WriterDep, artifacts: ArtifactsDep, job_id: str) -> JobObject:
    """Cancel a waiting job, or stop a running one within seconds."""
    with transaction() as session:
        job = service.cancel_job(session, caller.project_id, job_id)
        evaluation = job_evaluation(session, job.id)
    if job.start_sha256 is not None:
        # The model that it was to go on from may have been deleted while it waited.
        delete_unreferenced(artifacts, {job.start_sha256})
    return job_object(job, evaluation)


@router.get("/{job_id}/events")
def list_events(
    caller: ReaderDep, job_id: str, after: str | None = None, limit: _Limit = 20
) -> ListObject[EventObject]:
    """What happened to a job, newest first."""
    with transaction() as session:
        page = service.list_events(session, caller.project_id, job_id, after, limit)
    return list_object([event_object(event) for event in page.rows], page.has_more)


@router.get("/{job_id}/checkpoints")
def list_checkpoints(
    caller: ReaderDep, job_id: str, after: str | None = None, limit: _Limit = 10
) -> ListObject[CheckpointObject]:
    """A job's checkpoints, newest first; they answer under their names once the job has succeeded."""
    with transaction() as session:
        page = checkpoints.list_checkpoints(session, caller.project_id, job_id, after, limit)
        objects = checkpoints.checkpoint_objects(session, page.rows)
    return list_object(objects, page.has_more)
