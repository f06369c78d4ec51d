"""The body of ``POST /v1/completions``."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator

from manyicl_core.answers.fields import Sampled, Text

_MAX_PROMPTS = 2048
_MAX_CHARACTERS = 4_000_000


def _listed(value: Any) -> Any:
    """All prompts as a list: of texts, or of lists of token ids."""
    if isinstance(value, str) or (isinstance(value, list) and value and all(type(item) is int for item in value)):
        value = [value]
    if not isinstance(value, list) or {type(item) for item in value} not in ({str}, {list}):
        raise ValueError("give a text, a list of texts, a list of token ids, or a list of lists of token ids")
    return value


def _kind(value: Any) -> str:
    return "texts" if isinstance(value[0], str) else "token ids"


_OneText = Annotated[Text, Field(min_length=1)]
_OneIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
_Texts = Annotated[list[_OneText], Field(min_length=1, max_length=_MAX_PROMPTS)]
_ManyIds = Annotated[list[_OneIds], Field(min_length=1, max_length=_MAX_PROMPTS)]
Prompts = Annotated[
    Annotated[_Texts, Tag("texts")] | Annotated[_ManyIds, Tag("token ids")],
    Discriminator(_kind),
    BeforeValidator(_listed, json_schema_input_type=_OneText | _Texts | _OneIds | _ManyIds),
]


class CreateCompletion(Sampled):
    """The body of ``POST /v1/completions``; ``prompt`` is one prompt or a list of them, each a text or token ids.

    ``best_of`` may only say what ``n`` says, and ``suffix`` nothing.
    """

    prompt: Prompts
    echo: bool | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: int | None = None
    suffix: str | None = None

    @field_validator("prompt")
    @classmethod
    def _bounded(cls, prompts: list[str] | list[list[int]]) -> list[str] | list[list[int]]:
        if (size := sum(map(len, prompts))) > _MAX_CHARACTERS:
            raise ValueError(f"{size} characters or tokens; at most {_MAX_CHARACTERS} are taken at once")
        return prompts

    @field_validator("max_tokens")
    @classmethod
    def _none_written_for_echo_alone(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value == 0 and not info.data.get("echo"):
            raise ValueError("0 writes nothing; it is for echo alone. Give 1 or more, or set echo to true")
        return value

    @field_validator("best_of")
    @classmethod
    def _as_many_as_are_told(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value != (info.data.get("n") or 1):
            raise ValueError("every answer that is written is told; ask for n answers and leave best_of out")
        return value

    @field_validator("suffix")
    @classmethod
    def _no_suffix(cls, value: str | None) -> str | None:
        if value:
            raise ValueError("these models write what follows a text, not what fits into it; leave suffix out")
        return value
