"""The body of ``POST /v1/chat/completions``."""

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, ValidationInfo, field_validator

from manyicl_core.allowed_values import shown
from manyicl_core.answers.fields import Sampled, Text
from manyicl_core.request_body import RequestBody

_UNASKED_CHOICES = ("none", "auto")


def _unsupported(value: Any) -> Any:
    if value is not None:
        raise ValueError("these models read text and answer in text; leave this field out")
    return value


def _no_tools(value: Any) -> Any:
    if value not in (None, []):
        raise ValueError("these models call no tools and no functions; leave this field out, or describe them as text")
    return None


def _no_tool_demanded(value: Any) -> Any:
    if value is not None and value not in _UNASKED_CHOICES:
        raise ValueError("there are no tools here to choose: these models call none; give 'none' or 'auto'")
    return value


def _text_part(value: Any) -> Any:
    if value != "text":
        raise ValueError(f"these models read text, and no part of the type {shown(value)}; give 'text'")
    return value


_Unsupported = Annotated[None, BeforeValidator(_unsupported)]
NoTools = Annotated[
    None, BeforeValidator(_no_tools, json_schema_input_type=Annotated[list[Any], Field(max_length=0)] | None)
]
NoToolDemanded = Annotated[Literal["none", "auto"] | None, BeforeValidator(_no_tool_demanded)]


class TextPart(RequestBody):
    """A part of a message's content."""

    type: Annotated[Literal["text"], BeforeValidator(_text_part)]
    text: Text


class Message(RequestBody):
    """One message of a chat; an answer's message can be sent back as it came."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    name: str | None = None
    refusal: _Unsupported = None
    tool_calls: NoTools = None
    function_call: _Unsupported = None
    audio: _Unsupported = None
    annotations: Any = None

    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class JsonSchema(RequestBody):
    """OpenAI's ``json_schema``; the schema is always kept to, ``strict`` or not."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None

    @field_validator("schema_")
    @classmethod
    def _is_json(cls, schema: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(schema, allow_nan=False, ensure_ascii=False).encode()
        except ValueError as error:
            raise ValueError("this is not JSON: it holds NaN, an infinity or half a character") from error
        return schema


class TextFormat(RequestBody):
    """Free text."""

    type: Literal["text"]


class JsonObjectFormat(RequestBody):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(RequestBody):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class CreateChatCompletion(Sampled):
    """The body of ``POST /v1/chat/completions``.

    Fields that would change the meaning of an answer and are not known here are refused; hints, and
    those that only serve OpenAI's own bookkeeping, are accepted and ignored.
    """

    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None

    metadata: Any = None
    parallel_tool_calls: Any = None
    prediction: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None

    # What they say when they ask for nothing is accepted.
    modalities: list[Literal["text"]] | None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None
    tool_choice: NoToolDemanded = None
    function_call: NoToolDemanded = None
    tools: NoTools = None
    functions: NoTools = None
    audio: _Unsupported = None
    moderation: _Unsupported = None
    web_search_options: _Unsupported = None

    @field_validator("top_logprobs")
    @classmethod
    def _top_logprobs_need_logprobs(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and not info.data.get("logprobs"):
            raise ValueError("this needs logprobs; set logprobs to true")
        return value

    @field_validator("response_format")
    @classmethod
    def _one_grammar(cls, value: ResponseFormat | None, info: ValidationInfo) -> ResponseFormat | None:
        manyicl = info.data.get("manyicl")
        if manyicl is not None and manyicl.regex is not None and not isinstance(value, TextFormat | None):
            raise ValueError("the answer matches manyicl.regex already; give one of the two")
        return value

    def answer_tokens(self, default: int) -> int:
        """The most tokens of an answer."""
        return self.max_completion_tokens or self.max_tokens or default

    def structured_outputs(self) -> dict[str, Any] | None:
        """What ``response_format`` or ``manyicl.regex`` asks of the engine; None: free text."""
        match self.response_format:
            case JsonObjectFormat():
                return {"json_object": True}
            case JsonSchemaFormat(json_schema=json_schema):
                return {"json": json_schema.schema_}
        return super().structured_outputs()
