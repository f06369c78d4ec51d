"""The body of ``POST /v1/responses``, and the chat completion that it asks for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from manyicl_core.allowed_values import shown
from manyicl_core.answers.chat_request import (
    CreateChatCompletion,
    JsonObjectFormat,
    JsonSchema,
    JsonSchemaFormat,
    Message,
    NoToolDemanded,
    NoTools,
    ResponseFormat,
    TextFormat,
)
from manyicl_core.answers.fields import Text
from manyicl_core.errors import InvalidRequest
from manyicl_core.request_body import RequestBody
from manyicl_core.store.contexts.schemas import ManyiclChat

LOGPROBS = "message.output_text.logprobs"
_PARTS = ("input_text", "output_text", "text")


def _nothing_kept(value: Any) -> Any:
    if value not in (None, "", False):
        raise ValueError(
            "nothing of a response is kept here, and none goes on in the background; leave this field out, and send "
            "the earlier messages in input"
        )
    return None


def _unknown_here(value: Any) -> Any:
    if value not in (None, [], {}):
        raise ValueError("this service has no such thing; leave this field out")
    return None


def _no_reasoning(value: Any) -> Any:
    asked = value.values() if isinstance(value, dict) else [value]
    if any(each not in (None, "none") for each in asked):
        raise ValueError("these models do not reason apart from their answer; leave this out, or give 'none'")
    return None


def _message_item(value: Any) -> Any:
    if value == "item_reference":
        raise ValueError("nothing of a response is kept here; send the message itself in its place ('store' false)")
    if value not in (None, "message"):
        raise ValueError(f"these models read messages, and no item of the type {shown(value)}; give 'message'")
    return value


def _text_part(value: Any) -> Any:
    if value not in _PARTS:
        raise ValueError(f"these models read text, and no part of the type {shown(value)}; give 'input_text'")
    return value


_NothingKept = Annotated[None, BeforeValidator(_nothing_kept)]
_Unknown = Annotated[None, BeforeValidator(_unknown_here)]


class ResponsePart(RequestBody):
    """A part of a message's content: of a question, or of an answer that is sent back as it came."""

    type: Annotated[Literal["input_text", "output_text", "text"], BeforeValidator(_text_part)]
    text: Text
    annotations: Any = None
    logprobs: Any = None
    prompt_cache_breakpoint: Any = None


class InputMessage(RequestBody):
    """An item of ``input``; an answer's item can be sent back as it came."""

    type: Annotated[Literal["message"] | None, BeforeValidator(_message_item)] = None
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[ResponsePart]
    id: Any = None
    status: Any = None
    phase: Any = None

    def message(self) -> Message:
        """The same as a chat has it."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(role=self.role, content=content)


class JsonSchemaText(JsonSchema):
    """JSON that a schema describes; the schema lies beside its name."""

    type: Literal["json_schema"]


class TextOptions(RequestBody):
    """What the answer's text is."""

    format: Annotated[TextFormat | JsonObjectFormat | JsonSchemaText, Field(discriminator="type")] | None = None
    verbosity: Literal["medium"] | None = None


class ResponseStreamOptions(RequestBody):
    """OpenAI's ``stream_options`` of a response; obfuscation would only pad the events, and is left out."""

    include_obfuscation: bool | None = None


class CreateResponse(RequestBody):
    """The body of ``POST /v1/responses``, which keeps nothing.

    Fields that would change the answer and cannot be followed are refused; hints, and those that only serve
    OpenAI's own bookkeeping, are accepted.
    """

    model: Annotated[str, Field(min_length=1, max_length=512)]
    input: Text | Annotated[list[InputMessage], Field(min_length=1, max_length=1000)]
    instructions: Text | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    manyicl: ManyiclChat | None = None
    text: TextOptions | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None

    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    access_programs: Any = None
    max_tool_calls: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: bool | None = None
    user: Any = None

    # What they say when they ask for nothing is accepted.
    background: _NothingKept = None
    conversation: _NothingKept = None
    previous_response_id: _NothingKept = None
    prompt: _NothingKept = None
    context_management: _Unknown = None
    image: _Unknown = None
    moderation: _Unknown = None
    reasoning: Annotated[None, BeforeValidator(_no_reasoning)] = None
    tools: NoTools = None
    tool_choice: NoToolDemanded = None
    truncation: Literal["disabled"] | None = None

    @field_validator("text")
    @classmethod
    def _one_grammar(cls, value: TextOptions | None, info: ValidationInfo) -> TextOptions | None:
        manyicl = info.data.get("manyicl")
        has_regex = manyicl is not None and manyicl.regex is not None
        if has_regex and value is not None and not isinstance(value.format, TextFormat | None):
            raise ValueError("the answer matches manyicl.regex already; give one of the two")
        return value

    @property
    def logprobs_asked(self) -> bool:
        """Whether the answer tells log-probabilities."""
        return LOGPROBS in (self.include or ()) or bool(self.top_logprobs)

    def chat(self) -> CreateChatCompletion:
        """The chat completion whose answer is this response's."""
        told = [] if self.instructions is None else [Message(role="developer", content=self.instructions)]
        asked = (
            [Message(role="user", content=self.input)]
            if isinstance(self.input, str)
            else [item.message() for item in self.input]
        )
        return CreateChatCompletion(
            model=self.model,
            messages=told + asked,
            max_completion_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            logprobs=self.logprobs_asked or None,
            top_logprobs=self.top_logprobs if self.logprobs_asked else None,
            response_format=self._response_format(),
            manyicl=self.manyicl,
            stream=self.stream,
        )

    def _response_format(self) -> ResponseFormat | None:
        format_ = None if self.text is None else self.text.format
        if not isinstance(format_, JsonSchemaText):
            return format_
        schema = JsonSchema.model_validate(format_.model_dump(by_alias=True, exclude={"type"}))
        return JsonSchemaFormat(type="json_schema", json_schema=schema)

    @contextmanager
    def naming_its_fields(self) -> Iterator[None]:
        """Let a refusal of the chat name the field of this body that it is about.

        Raises:
            InvalidRequest: as it was, in these words.
        """
        try:
            yield
        except InvalidRequest as error:
            if error.param is None or (field := self._field_of(error.param)) == error.param:
                raise
            message = error.message.removeprefix(error.param)
            raise InvalidRequest(field + message if message != error.message else message, field, error.code) from error

    def _field_of(self, chat_field: str) -> str:
        match chat_field.split("."):
            case ["messages", number, *rest]:
                index = int(number) - (self.instructions is not None)
                if index < 0:
                    return "instructions"
                return "input" if isinstance(self.input, str) else ".".join(["input", str(index), *rest])
            case ["messages"]:
                return "input"
            case ["response_format"]:
                return "text.format"
        return chat_field
