"""Batches: create, list, retrieve, cancel."""

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from api.creation import OnceDep
from api.dependencies import ArtifactsDep, ReaderDep, WriterDep
from api.routes.lists import ListObject, list_object
from manyicl_core.store.batches import service
from manyicl_core.store.batches.schemas import BatchObject, CreateBatch, batch_object
from manyicl_core.store.hints import RUN_BATCH, publish_hint
from manyicl_core.store.session import transaction

router = APIRouter(prefix="/batches", tags=["batches"])


@router.post("")
def create_batch(caller: WriterDep, artifacts: ArtifactsDep, once: OnceDep, body: CreateBatch) -> BatchObject:
    """Queue a file of requests; its lines are checked before the first is answered."""

    def create(session: Session) -> BatchObject:
        return batch_object(service.create_batch(session, artifacts, caller.project_id, body))

    batch = once.create(body, create)
    # After the commit: a worker that gets the hint must find the row.
    publish_hint(RUN_BATCH, batch.id)
    return batch


@router.get("")
def list_batches(
    caller: ReaderDep, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> ListObject[BatchObject]:
    """The project's batches, newest first."""
    with transaction() as session:
        page = service.list_batches(session, caller.project_id, after, limit)
    return list_object([batch_object(batch) for batch in page.rows], page.has_more)


@router.get("/{batch_id}")
def retrieve_batch(caller: ReaderDep, batch_id: str) -> BatchObject:
    """One batch, with how far it has come."""
    with transaction() as session:
        return batch_object(service.get_batch(session, caller.project_id, batch_id))


@router.post("/{batch_id}/cancel")
def cancel_batch(caller: WriterDep, artifacts: ArtifactsDep, batch_id: str) -> BatchObject:
    """Cancel a waiting batch, or stop a running one within seconds; what is answered stays."""
    with transaction() as session:
        batch = service.cancel_batch(session, caller.project_id, batch_id)
    service.forget_work_files(artifacts, batch)
    return batch_object(batch)
