"""Contexts: create, list, retrieve, delete."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from api.creation import OnceDep
from api.dependencies import ArtifactsDep, EngineDep, ReaderDep, WriterDep
from api.routes.lists import ListObject, list_object
from manyicl_core.store.contexts import hosting
from manyicl_core.store.contexts.context_object import ContextDeleted, ContextObject, context_object
from manyicl_core.store.contexts.options import CreateContext
from manyicl_core.store.hints import BUILD_CONTEXT, publish_hint
from manyicl_core.store.session import transaction

router = APIRouter(prefix="/contexts", tags=["contexts"])


@router.post("")
def create_context(caller: WriterDep, artifacts: ArtifactsDep, once: OnceDep, body: CreateContext) -> ContextObject:
    """Check model, examples and options, and queue a context."""

    def create(session: Session) -> ContextObject:
        return context_object(hosting.create_context(session, artifacts, caller.project_id, body))

    context = once.create(body, create)
    # After the commit: a worker that gets the hint must find the row.
    publish_hint(BUILD_CONTEXT, context.id)
    return context


@router.get("")
def list_contexts(
    caller: ReaderDep, after: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 20
) -> ListObject[ContextObject]:
    """The project's contexts, newest first."""
    with transaction() as session:
        page = hosting.list_contexts(session, caller.project_id, after, limit)
    return list_object([context_object(row) for row in page.rows], page.has_more)


@router.get("/{context_id}")
def retrieve_context(caller: ReaderDep, context_id: str) -> ContextObject:
    """One context."""
    with transaction() as session:
        return context_object(hosting.get_context(session, caller.project_id, context_id))


@router.delete("/{context_id}")
async def delete_context(
    caller: WriterDep, artifacts: ArtifactsDep, engine: EngineDep, context_id: str
) -> ContextDeleted:
    """Delete a context and all that is kept of it."""
    await run_in_threadpool(_expire, caller.project_id, context_id)
    await hosting.remove_contexts(artifacts, await run_in_threadpool(hosting.expired_contexts), engine.forget)
    return ContextDeleted(id=context_id)


def _expire(project_id: str, context_id: str) -> None:
    with transaction() as session:
        hosting.expire_context(session, project_id, context_id)
