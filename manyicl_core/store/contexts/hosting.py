"""Create, find and delete hosted contexts: what the api asks for."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from manyicl_core.base_models.catalog import base_model_folder, is_pulled
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.errors import InvalidRequest, NotFound, Unavailable
from manyicl_core.ids import new_id
from manyicl_core.method.encoding import Encoder
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.contexts.compiled import delete_objects, load_compiled, put_source
from manyicl_core.store.contexts.options import CreateContext
from manyicl_core.store.contexts.salts import cache_salt
from manyicl_core.store.contexts.service import longest_context
from manyicl_core.store.contexts.sources import source_task
from manyicl_core.store.creations import forget_made
from manyicl_core.store.job_states import QUEUED
from manyicl_core.store.leases import request_cancel
from manyicl_core.store.models.service import ServedModel, served_model
from manyicl_core.store.pages import Page, delete_listed, fetch_created
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Context

CONTEXT_PREFIX = "ctx_"

_REMOVED_AT_ONCE = 100

Forget = Callable[[dict[str, Any]], Awaitable[bool]]
"""Has the engines forget a prefix; says whether all of them have."""


def create_context(session: Session, store: ArtifactStore, project_id: str, request: CreateContext) -> Context:
    """Check everything and queue a context.

    Raises:
        InvalidRequest: a field or a line of a file is wrong.
        NotFound: the model or the file does not exist.
        Unavailable: the base model is not on this machine.
    """
    model = served_model(session, project_id, request.model)
    if not is_pulled(base_model_folder(model.base)):
        raise Unavailable(f"{model.base.id} is not on this machine yet; run `manyicl models pull`", "model")
    max_tokens = _token_budget(model, request.max_tokens)
    task = source_task(session, store, project_id, model, request)
    _check_instruction(load_encoder(base_model_folder(model.base)), task.definition.instruction, max_tokens)
    seconds = None if request.expires_after is None else request.expires_after.seconds
    context = Context(
        id=new_id(CONTEXT_PREFIX),
        project_id=project_id,
        state=QUEUED,
        expires_at=None if seconds is None else func.now() + timedelta(seconds=seconds),
        name=request.name,
        model=request.model,
        base_model=model.base.id,
        weights_sha256=model.weights_sha256,
        task=None if request.examples is not None else task.definition.name,
        file=request.file,
        examples=len(task.demonstrations),
        instruction=task.definition.instruction,
        labels=task.definition.labels,
        max_shots=request.max_shots,
        max_tokens=max_tokens,
        selection=request.selection or ("random" if task.definition.labels is None else "balanced"),
        seed=request.seed,
        annotations=request.metadata or {},
    )
    # The examples first: a row never points at nothing.
    put_source(store, context.id, task)
    session.add(context)
    session.flush()
    session.refresh(context)
    return context


def _token_budget(model: ServedModel, asked: int | None) -> int:
    """As asked; otherwise a training sequence of the model, or what leaves room for a query."""
    longest = longest_context(model.base)
    if asked is None:
        return min(model.trained_tokens, longest)
    if asked > longest:
        raise InvalidRequest(
            f"max_tokens: {asked}; a context of {model.base.id} may have {longest} tokens, so that a query and its "
            "answer fit beside it",
            "max_tokens",
        )
    return asked


def _check_instruction(encoder: Encoder, instruction: str, max_tokens: int) -> None:
    tokens = len(encoder.instruction(instruction))
    if tokens >= max_tokens:
        raise InvalidRequest(
            f"instruction: it takes {tokens} tokens, which leaves no room for a demonstration, as max_tokens is "
            f"{max_tokens}; shorten it or raise max_tokens",
            "instruction",
            "context_length_exceeded",
        )


def get_context(session: Session, project_id: str, context_id: str, param: str | None = None) -> Context:
    """One context of the project.

    Raises:
        NotFound: the project has no such context, or it has expired.
    """
    query = select(Context).where(Context.id == context_id, Context.project_id == project_id, is_alive())
    context = session.scalar(query)
    if context is None:
        raise NotFound("context", context_id, param)
    return context


def list_contexts(session: Session, project_id: str, after: str | None, limit: int) -> Page[Context]:
    """A page of contexts, newest first."""
    query = select(Context).where(Context.project_id == project_id, is_alive())
    return fetch_created(session, query, Context.project_id, project_id, after, limit, "context")


def expire_context(session: Session, project_id: str, context_id: str) -> None:
    """End a context now; ``remove_contexts`` then takes it away, also if this process does not live to do so.

    Raises:
        NotFound: the project has no such context.
    """
    context = get_context(session, project_id, context_id)
    context.expires_at = session.scalar(select(func.now()))
    request_cancel(session, context)
    forget_made(session, context_id)


def expired_contexts() -> list[Context]:
    """What is to be taken away, some of it: nobody sees it any more."""
    # Those that no engine has anything of first: while an engine is away, only they can go.
    order = Context.artifact.is_not(None), Context.expires_at
    with transaction() as session:
        rows = session.scalars(select(Context).where(~is_alive()).order_by(*order).limit(_REMOVED_AT_ONCE)).all()
        session.expunge_all()
    return list(rows)


async def remove_contexts(store: ArtifactStore, contexts: Sequence[Context], forget: Forget) -> None:
    """Take expired contexts away: from the engines, the artifact store and the table.

    An engine that is away keeps a prefix on its disk. So the row goes last, and stays until ``forget`` says that
    all engines have forgotten: a later look finds it and tries again.
    """
    for context in contexts:
        prefix = await asyncio.to_thread(_prefix, store, context)
        if prefix is not None and not await forget(prefix):
            return
        await asyncio.to_thread(_remove, store, context)


def _prefix(store: ArtifactStore, context: Context) -> dict[str, Any] | None:
    """What a context's prefix was compiled with; None: it has none."""
    try:
        compiled = None if context.artifact is None else load_compiled(store, context.artifact)
    except FileNotFoundError:  # an earlier removal was interrupted after the objects
        compiled = None
    if compiled is None:
        return None
    return prefix_of(context, compiled.tokens, compiled.ends)


def prefix_of(context: Context, tokens: Sequence[int], ends: Sequence[int] = ()) -> dict[str, Any]:
    """What has the engines forget a prefix of a context's project and model; ``ends``: where fewer shots end."""
    salt = cache_salt(context.project_id, context.weights_sha256)
    model = context.weights_sha256 or context.base_model
    return {"model": model, "tokens": list(tokens), "ends": list(ends), "cache_salt": salt}


def _remove(store: ArtifactStore, context: Context) -> None:
    with transaction() as session:
        # Not if a worker has chosen since: then there is a prefix to forget first.
        unchanged = Context.id == context.id, Context.artifact.is_not_distinct_from(context.artifact)
        row = session.scalar(select(Context).where(*unchanged).with_for_update(skip_locked=True))
        if row is not None:
            # Under the row's lock: a worker that has just chosen waits, finds no row and writes nothing.
            delete_objects(store, context.id)
            delete_listed(session, row, row.project_id)


def is_alive() -> ColumnElement[bool]:
    """Whether a context has not expired."""
    return or_(Context.expires_at.is_(None), Context.expires_at > func.now())
