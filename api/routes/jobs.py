"""Fine-tuning jobs: create, plan, list, retrieve, cancel, pause, resume, events, checkpoints."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session
from starlette.datastructures import QueryParams

from api.creation import OnceDep
from api.dependencies import ArtifactsDep, JobFeedDep, ReaderDep, WriterDep
from api.in_thread import in_thread
from api.routes.event_stream import STREAMED_RESPONSES, event_stream
from api.routes.lists import ListObject, list_object
from manyicl_core.errors import InvalidRequest
from manyicl_core.store.hints import RUN_JOB, publish_hint
from manyicl_core.store.jobs import checkpoints, control, planning, service
from manyicl_core.store.jobs.metrics import MetricsObject, list_metrics, metrics_lines, metrics_object
from manyicl_core.store.jobs.options import CreateJob
from manyicl_core.store.jobs.plan_schemas import PlanObject
from manyicl_core.store.jobs.schemas import CheckpointObject, EventObject, JobObject, event_object
from manyicl_core.store.session import reading, transaction

router = APIRouter(prefix="/fine_tuning/jobs", tags=["fine-tuning"])

_Limit = Annotated[int, Query(ge=1, le=1000)]


@router.post("")
def create_job(caller: WriterDep, artifacts: ArtifactsDep, once: OnceDep, body: CreateJob) -> JobObject:
    """Check files and options, and queue a job."""

    def create(session: Session) -> JobObject:
        return service.show_job(session, service.create_job(session, artifacts, caller.project_id, body))

    job = once.create(body, create)
    # After the commit: a worker that gets the hint must find the row.
    publish_hint(RUN_JOB, job.id)
    return job


@router.post("/plan")
def plan_job(caller: ReaderDep, artifacts: ArtifactsDep, body: CreateJob) -> PlanObject:
    """Tell what a job would do and take, as far as it is known; nothing is stored or queued."""
    with reading() as session:
        plan = planning.plan_job(session, artifacts, caller.project_id, body)
    with transaction() as session:
        return plan.told(session, caller.project_id)


@router.get("")
@in_thread
def list_jobs(
    request: Request,
    caller: ReaderDep,
    after: str | None = None,
    limit: _Limit = 20,
    metadata: Annotated[Literal["null"] | None, Query(description="`null`: jobs without metadata")] = None,
) -> ListObject[JobObject]:
    """The project's jobs, newest first; ``metadata[key]=value`` keeps those that have all these pairs."""
    pairs = _metadata_pairs(request.query_params)
    if metadata is not None and pairs:
        raise InvalidRequest("metadata: null keeps jobs without metadata, so no pair can be asked for too", "metadata")
    with reading() as session:
        page = service.list_jobs(session, caller.project_id, after, limit, {} if metadata else pairs or None)
        return list_object(service.show_jobs(session, page.rows), page.has_more)


def _metadata_pairs(query: QueryParams) -> dict[str, str]:
    """The pairs asked for as ``metadata[key]=value``, of which a key may be named once."""
    pairs: dict[str, str] = {}
    for name, value in query.multi_items():
        if not (name.startswith("metadata[") and name.endswith("]")):
            continue
        key = name.removeprefix("metadata[").removesuffix("]")
        if pairs.setdefault(key, value) != value:
            raise InvalidRequest(f"{name}: no job has two values under one key; name each key once", name)
    return pairs


@router.get("/{job_id}")
@in_thread
def retrieve_job(caller: ReaderDep, job_id: str) -> JobObject:
    """One job."""
    with reading() as session:
        job = service.get_job(session, caller.project_id, job_id)
        return service.show_job(session, job)


@router.post("/{job_id}/cancel")
def cancel_job(caller: WriterDep, artifacts: ArtifactsDep, job_id: str) -> JobObject:
    """Cancel a waiting or paused job, or stop a running one within seconds."""
    with transaction() as session:
        job, left = control.cancel_job(session, caller.project_id, job_id)
        shown = service.show_job(session, job)
    left.delete(artifacts)
    return shown


@router.post("/{job_id}/pause")
def pause_job(caller: WriterDep, job_id: str) -> JobObject:
    """Take a job out of the queue or from its worker, which is free again within seconds."""
    with transaction() as session:
        job = control.pause_job(session, caller.project_id, job_id)
        return service.show_job(session, job)


@router.post("/{job_id}/resume")
def resume_job(caller: WriterDep, job_id: str) -> JobObject:
    """Put a paused job back into the queue; it goes on from its last checkpoint."""
    with transaction() as session:
        job = control.resume_job(session, caller.project_id, job_id)
        shown = service.show_job(session, job)
    # After the commit: a worker that gets the hint must find the job waiting.
    publish_hint(RUN_JOB, job.id)
    return shown


@router.get(
    "/{job_id}/events",
    response_model=ListObject[EventObject],
    responses=STREAMED_RESPONSES,
)
def list_events(
    caller: ReaderDep,
    feed: JobFeedDep,
    job_id: str,
    after: str | None = None,
    limit: _Limit = 20,
    stream: bool = False,
    last_event_id: Annotated[str | None, Header()] = None,
) -> ListObject[EventObject] | Response:
    """What happened to a job, newest first; with ``stream`` server-sent events, oldest first, until its end."""
    with transaction() as session:
        if not stream:
            page = service.list_events(session, caller.project_id, job_id, after, limit)
            return list_object([event_object(event) for event in page.rows], page.has_more)
        job = service.get_job(session, caller.project_id, job_id)
        # A browser that comes back says both, of which ``after`` is where it once began.
        known = last_event_id or after
        number = service.event_number(session, job.id, known) if known else 0
    return event_stream(feed, job.id, number)


@router.get(
    "/{job_id}/metrics",
    response_model=ListObject[MetricsObject],
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def list_job_metrics(
    caller: ReaderDep,
    job_id: str,
    after: Annotated[int | None, Query(ge=0, le=2**31 - 1, description="a step's number")] = None,
    limit: _Limit = 100,
    every: Annotated[int, Query(ge=1, le=1_000_000, description="only steps whose number this divides")] = 1,
    format_: Annotated[Literal["json", "csv"], Query(alias="format")] = "json",
) -> ListObject[MetricsObject] | Response:
    """The metrics of a job's steps in their order: a page, or all as CSV."""
    with transaction() as session:
        if format_ == "csv":
            job = service.get_job(session, caller.project_id, job_id)
            headers = {"content-disposition": f'attachment; filename="{job.id}-metrics.csv"'}
            return StreamingResponse(metrics_lines(job, every), media_type="text/csv", headers=headers)
        page = list_metrics(session, caller.project_id, job_id, after, limit, every)
    return list_object([metrics_object(row) for row in page.rows], page.has_more)


@router.get("/{job_id}/checkpoints")
def list_checkpoints(
    caller: ReaderDep, job_id: str, after: str | None = None, limit: _Limit = 10
) -> ListObject[CheckpointObject]:
    """A job's checkpoints, newest first; they answer under their names once the job has succeeded."""
    with reading() as session:
        page = checkpoints.list_checkpoints(session, caller.project_id, job_id, after, limit)
        objects = checkpoints.checkpoint_objects(session, page.rows)
    return list_object(objects, page.has_more)
