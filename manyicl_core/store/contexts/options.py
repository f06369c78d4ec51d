"""What a client may ask of a context."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from manyicl_core.method.selection import SelectionKind
from manyicl_core.method.tasks import MAX_TEXT_CHARACTERS, distinct_labels
from manyicl_core.request_body import RequestBody
from manyicl_core.store.contexts.schemas import ContextExample, Text

AUTO = "auto"

_Key = Annotated[str, StringConstraints(max_length=64)]
_Value = Annotated[str, StringConstraints(max_length=512)]


class ExpiresAfter(RequestBody):
    """OpenAI's ``expires_after``: the context is gone so many seconds after its creation."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=60, le=366 * 24 * 3600)


class CreateContext(RequestBody):
    """The body of ``POST /v1/contexts``.

    The examples are those of a ``task`` of the fine-tuned model's job, are given in ``examples``, or
    are the lines of an uploaded ``file``; ``task`` then names which of its tasks.
    """

    model: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    task: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    examples: Annotated[list[ContextExample], Field(min_length=1, max_length=10_000)] | None = None
    file: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None

    name: Annotated[str, StringConstraints(max_length=256)] | None = None
    instruction: Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARACTERS)] | None = None
    labels: Annotated[list[Text], Field(min_length=2, max_length=1000)] | None = None
    max_shots: int | None = Field(default=None, ge=1, le=10_000)
    max_tokens: int | None = Field(default=None, ge=1)
    selection: SelectionKind | Literal["auto"] | None = None
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    expires_after: ExpiresAfter | None = None
    metadata: Annotated[dict[_Key, _Value], Field(max_length=16)] | None = None

    @field_validator("labels")
    @classmethod
    def _labels_are_distinct(cls, labels: list[str] | None) -> list[str] | None:
        return None if labels is None else distinct_labels(labels)
