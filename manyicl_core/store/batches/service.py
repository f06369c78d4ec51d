"""Create, find and cancel batches: what the api asks for."""

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from manyicl_core.errors import Conflict, InvalidRequest, NotFound
from manyicl_core.ids import new_id
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.batches.results import delete_work_files, input_key
from manyicl_core.store.batches.schemas import CreateBatch, batch_status
from manyicl_core.store.creations import forget_made
from manyicl_core.store.files.content import MAX_BATCH_BYTES, content_key
from manyicl_core.store.files.service import get_file
from manyicl_core.store.job_states import CANCELLED, FINAL, QUEUED
from manyicl_core.store.leases import request_cancel
from manyicl_core.store.pages import Page, fetch_created
from manyicl_core.store.tables import Batch
from manyicl_core.store.webhooks.outbox import announce

_WINDOW = timedelta(hours=24)


def create_batch(session: Session, store: ArtifactStore, project_id: str, request: CreateBatch) -> Batch:
    """Put a file of requests into the queue. A worker checks its lines.

    The batch keeps a copy of the file, which may be deleted at once.

    Raises:
        NotFound: the file does not exist.
        InvalidRequest: it is too large or was uploaded for something else, or a field is wrong.
    """
    file = get_file(session, project_id, request.input_file_id, "input_file_id")
    if file.purpose != "batch":
        raise InvalidRequest(
            f"input_file_id: {file.id} was uploaded with the purpose {file.purpose!r}; upload it with 'batch'",
            "input_file_id",
        )
    if file.bytes > MAX_BATCH_BYTES:
        raise InvalidRequest(
            f"input_file_id: the file has {file.bytes} bytes and a batch may have {MAX_BATCH_BYTES}; "
            "split it into several batches",
            "input_file_id",
        )
    batch = Batch(
        id=new_id("batch_"),
        project_id=project_id,
        state=QUEUED,
        endpoint=request.endpoint,
        completion_window=request.completion_window,
        input_file=file.id,
        labels=request.metadata or {},
        expires_at=func.now() + _WINDOW,
        output_seconds=None if request.output_expires_after is None else request.output_expires_after.seconds,
    )
    try:
        store.copy(content_key(file.id), input_key(batch.id))
    except FileNotFoundError as error:
        raise NotFound("file", file.id, "input_file_id") from error
    session.add(batch)
    session.flush()
    session.refresh(batch)
    return batch


def get_batch(session: Session, project_id: str, batch_id: str) -> Batch:
    """One batch of the project.

    Raises:
        NotFound: the project has no such batch.
    """
    batch = session.scalar(select(Batch).where(Batch.id == batch_id, Batch.project_id == project_id))
    if batch is None:
        raise NotFound("batch", batch_id)
    return batch


def list_batches(session: Session, project_id: str, after: str | None, limit: int) -> Page[Batch]:
    """A page of batches, newest first."""
    query = select(Batch).where(Batch.project_id == project_id)
    return fetch_created(session, query, Batch.project_id, project_id, after, limit, "batch")


def cancel_batch(session: Session, project_id: str, batch_id: str) -> Batch:
    """Cancel a waiting batch at once, or ask a running one's worker to stop; what is answered stays.

    Raises:
        NotFound: the project has no such batch.
        Conflict: it is over.
    """
    batch = get_batch(session, project_id, batch_id)
    done = request_cancel(session, batch)
    forget_made(session, batch.id)
    session.refresh(batch)
    if done == "cancelled":
        announce(session, project_id, "batch.cancelled", batch.id)
    if batch.state in FINAL and batch.state != CANCELLED:
        raise Conflict(
            f"The batch is over ({batch_status(batch)}); only a waiting or running one can be cancelled", None
        )
    return batch


def forget_work_files(store: ArtifactStore, batch: Batch) -> None:
    """Delete what only a running batch needs, once it is over."""
    if batch.state in FINAL:
        delete_work_files(store, batch.id)


def seconds_left(session: Session, batch_id: str) -> float:
    """How long the completion window is still open, by the database's clock."""
    query = select(func.extract("epoch", Batch.expires_at - func.now())).where(Batch.id == batch_id)
    return float(session.execute(query).scalar_one())
