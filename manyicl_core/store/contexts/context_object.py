"""Contexts as the API shows them."""

from typing import Any, Literal

from pydantic import BaseModel

from manyicl_core.method.shot_warnings import Warned, shots_warnings
from manyicl_core.store.tables import Context


class ContextError(BaseModel):
    """Why a context failed, and what to do next."""

    code: str
    message: str


class TriedObject(BaseModel):
    """One way to choose, tried on the validation part: its mean ``score``, from 0 to 1."""

    selection: str
    shots: int
    tokens: int
    score: float


class SelectedObject(BaseModel):
    """How the demonstrations were chosen.

    With ``auto``, ``tried`` are the ways that were asked about ``validation_examples`` examples, kept
    apart meanwhile, and judged by ``metric``; ``reason`` says why one was taken.
    """

    selection: str
    validation_examples: int = 0
    metric: str | None = None
    tried: list[TriedObject] = []
    reason: str | None = None


class ContextObject(BaseModel):
    """A context. From ``shots`` on, what came out: null until the demonstrations are chosen.

    ``examples`` is how many there are to choose from; ``demonstrations`` are the chosen ones, in the
    order in which they are shown: line numbers in the file, positions in the pasted list. ``bytes``
    is what the compiled prefix takes in the engine's memory. ``warnings`` say what came out otherwise
    than was asked.
    """

    id: str
    object: Literal["context"] = "context"
    created_at: int
    expires_at: int | None
    finished_at: int | None
    status: str
    error: ContextError | None
    name: str | None
    model: str
    task: str | None
    file: str | None
    examples: int
    instruction: str
    labels: list[str] | None
    max_shots: int | None
    max_tokens: int
    selection: str
    seed: int
    metadata: dict[str, Any]

    shots: int | None
    tokens: int | None
    bytes: int | None
    demonstrations: list[int]
    selected: SelectedObject | None
    warnings: list[Warned]


class ContextDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["context"] = "context"
    deleted: Literal[True] = True


def context_object(context: Context) -> ContextObject:
    """A row as the API shows it."""
    error = None
    if context.error_code is not None:
        error = ContextError(code=context.error_code, message=context.error_message or "")
    shots = None if context.artifact is None else len(context.demonstrations)
    return ContextObject(
        id=context.id,
        created_at=int(context.created_at.timestamp()),
        expires_at=None if context.expires_at is None else int(context.expires_at.timestamp()),
        finished_at=None if context.finished_at is None else int(context.finished_at.timestamp()),
        status=context.state,
        error=error,
        name=context.name,
        model=context.model,
        task=context.task,
        file=context.file,
        examples=context.examples,
        instruction=context.instruction,
        labels=context.labels,
        max_shots=context.max_shots,
        max_tokens=context.max_tokens,
        selection=context.selection,
        seed=context.seed,
        metadata=context.annotations,
        shots=shots,
        tokens=context.tokens,
        bytes=context.bytes,
        demonstrations=context.demonstrations,
        selected=None if context.selected is None else SelectedObject.model_validate(context.selected),
        warnings=[] if shots is None else list(shots_warnings(context.max_shots, shots)),
    )
