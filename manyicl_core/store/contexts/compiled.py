"""A hosted context as calls need it: one JSON object, read into memory once a process."""

from functools import lru_cache

from pydantic import BaseModel, ConfigDict

from manyicl_core.method.contexts import Context
from manyicl_core.method.encoding import Encoder
from manyicl_core.method.tasks import Task
from manyicl_core.objects import ArtifactStore


class CompiledContext(BaseModel):
    """All that a call adds its query to.

    Attributes:
        tokens: the context's ids.
        ends: ``ends[k]`` tokens are the context of the first k demonstrations.
        stop: the id that ends an answer.
        labels: the closed set of answers, or None.
        label_tokens: their ids, each with the stop id.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: list[int]
    ends: list[int]
    stop: int
    labels: list[str] | None
    label_tokens: list[list[int]] | None


def compile_tokens(encoder: Encoder, context: Context, labels: list[str] | None) -> CompiledContext:
    """What calls of a chosen context need, computed once."""
    return CompiledContext(
        tokens=list(context.tokens),
        ends=list(context.ends),
        stop=encoder.stop,
        labels=labels,
        label_tokens=None if labels is None else [encoder.answer(label) for label in labels],
    )


def put_compiled(store: ArtifactStore, context_id: str, fence: int, compiled: CompiledContext) -> str:
    """Keep a compiled context; gives the key. A stale worker has another fence, so it replaces nothing."""
    key = f"{_folder(context_id)}/{fence}.json"
    store.put(key, compiled.model_dump_json().encode())
    return key


@lru_cache(maxsize=256)
def load_compiled(store: ArtifactStore, key: str) -> CompiledContext:
    """The compiled context under ``key``; an object never changes, so memory never lies."""
    return CompiledContext.model_validate_json(store.get(key))


def put_source(store: ArtifactStore, context_id: str, task: Task) -> None:
    """Keep the examples until the demonstrations are chosen."""
    store.put(_source_key(context_id), task.model_dump_json().encode())


def load_source(store: ArtifactStore, context_id: str) -> Task:
    """The examples to choose from.

    Raises:
        FileNotFoundError: the context is gone.
    """
    return Task.model_validate_json(store.get(_source_key(context_id)))


def delete_source(store: ArtifactStore, context_id: str) -> None:
    """The demonstrations are chosen: the examples are needed no more."""
    store.delete(_source_key(context_id))


def delete_objects(store: ArtifactStore, context_id: str) -> None:
    """Remove all that is kept of a context."""
    for name in store.names(_folder(context_id)):
        store.delete(f"{_folder(context_id)}/{name}")


def _folder(context_id: str) -> str:
    return f"contexts/{context_id}"


def _source_key(context_id: str) -> str:
    return f"{_folder(context_id)}/source.json"
