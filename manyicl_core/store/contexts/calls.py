"""A call that names a hosted context: which one it is, and its prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from manyicl_core.base_models.catalog import base_model_folder, context_length
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.errors import Conflict, InvalidRequest, NotFound, NotReady
from manyicl_core.method.tasks import Turn
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.contexts.compiled import load_compiled
from manyicl_core.store.contexts.hosting import CONTEXT_PREFIX, get_context
from manyicl_core.store.contexts.schemas import ManyiclChat
from manyicl_core.store.contexts.service import ANSWER_ROOM, HostedPrompt
from manyicl_core.store.models.service import ServedModel
from manyicl_core.store.tables import Context


@dataclass(frozen=True, slots=True)
class NamedContext:
    """A context that answers.

    Attributes:
        model: its model, as the client named it when the context was made.
        artifact: where its tokens lie.
        instruction: what stands before its demonstrations.
        max_shots: show at most the first so many of its demonstrations.
        asked_shots: how many the call asked for, or else whoever made the context; None: nobody did.
    """

    id: str
    model: str
    artifact: str
    instruction: str
    max_shots: int | None
    asked_shots: int | None


def named_context(session: Session, project_id: str, model: str, manyicl: ManyiclChat | None) -> NamedContext | None:
    """The context that a call names, by its model or in its ``manyicl`` object; None: it names none.

    Raises:
        NotFound: the project has no such context.
        InvalidRequest: the call names two, or another model.
        NotReady: its demonstrations are not chosen yet.
        Conflict: it has failed.
    """
    asked = manyicl.context if manyicl is not None and isinstance(manyicl.context, str) else None
    if model.startswith(CONTEXT_PREFIX):
        if manyicl is not None and (manyicl.task is not None or manyicl.context not in (None, model)):
            raise InvalidRequest(
                "the model is a context already; leave manyicl.task and manyicl.context out", "manyicl"
            )
        param = "model"
        context = get_context(session, project_id, model, param)
    elif asked is not None:
        param = "manyicl.context"
        context = get_context(session, project_id, asked, param)
        if context.model != model:
            raise InvalidRequest(f"{asked} belongs to the model {context.model}; name that, or the context", "model")
    else:
        return None
    return NamedContext(
        id=context.id,
        model=context.model,
        artifact=_artifact(context, param),
        instruction=context.instruction,
        max_shots=None if manyicl is None else manyicl.max_shots,
        asked_shots=context.max_shots if manyicl is None or manyicl.max_shots is None else manyicl.max_shots,
    )


def _artifact(context: Context, param: str) -> str:
    if context.error_code is not None:
        raise Conflict(f"{context.id} has failed: {context.error_message}", param, context.error_code)
    if context.artifact is None:
        raise NotReady(
            f"{context.id} is {context.state}: its demonstrations are being chosen; try again in a moment",
            param,
            "context_not_ready",
        )
    return context.artifact


def named_prompts(
    store: ArtifactStore,
    model: ServedModel,
    named: NamedContext,
    queries: Sequence[str],
    earlier: Sequence[Turn],
    param: str,
) -> list[HostedPrompt]:
    """The prompts for ``queries``, each after ``earlier`` exchanges, behind a hosted context.

    Only what follows the context is encoded; ``param`` is the field that the queries came in.

    Raises:
        InvalidRequest: the context and a query are longer than the model reads.
        NotFound: the context has been deleted meanwhile.
    """
    try:
        compiled = load_compiled(store, named.artifact)
    except FileNotFoundError:
        raise NotFound("context", named.id, "model") from None
    shots = len(compiled.ends) - 1
    if named.max_shots is not None:
        shots = min(shots, named.max_shots)
    prefix = tuple(compiled.tokens[: compiled.ends[shots]])
    encoder = load_encoder(base_model_folder(model.base))
    encoded = [encoder.query(query, earlier) for query in queries]
    room = context_length(model.base) - len(prefix) - ANSWER_ROOM
    for number, query in enumerate(encoded):
        if len(query) > room:
            which = "the query" if len(encoded) == 1 else f"{param}: query {number}, counted from 0,"
            raise InvalidRequest(
                f"{which} has {len(query)} tokens and {room} fit between its context and its answer; shorten it",
                param,
                "context_length_exceeded",
            )
    labels = None if compiled.labels is None else tuple(compiled.labels)
    return [
        HostedPrompt(
            prefix=prefix,
            query=tuple(query),
            shots=shots,
            stop_token=compiled.stop,
            labels=labels,
            context=named.id,
            label_tokens=compiled.label_tokens,
            instruction=named.instruction,
            asked_shots=named.asked_shots,
        )
        for query in encoded
    ]
