"""The body of ``POST /v1/chat/completions``."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator

from manyicl_core.store.contexts.schemas import ManyiclChat


def _is_unicode(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("this holds half a character (a lone surrogate); send valid Unicode")
    return text


Text = Annotated[str, AfterValidator(_is_unicode)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Strict):
    """A part of a message's content."""

    type: Literal["text"]
    text: Text


class Message(_Strict):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    name: str | None = None

    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(_Strict):
    """OpenAI's ``stream_options``."""

    include_usage: bool = False
    include_obfuscation: bool = False


class JsonSchema(_Strict):
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


class TextFormat(_Strict):
    """Free text."""

    type: Literal["text"]


class JsonObjectFormat(_Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(_Strict):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
_Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
_TokenId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
_Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


class CreateChatCompletion(_Strict):
    """The body of ``POST /v1/chat/completions``.

    Fields that would change the meaning of an answer and are not known here are refused; those
    that only serve OpenAI's own bookkeeping are accepted and ignored.
    """

    model: Annotated[str, Field(min_length=1, max_length=512)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=4)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: Annotated[dict[_TokenId, _Bias], Field(max_length=1024)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    manyicl: ManyiclChat | None = None

    metadata: Any = None
    parallel_tool_calls: Any = None
    prompt_cache_key: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    user: Any = None

    @field_validator("top_logprobs")
    @classmethod
    def _top_logprobs_need_logprobs(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and not info.data.get("logprobs"):
            raise ValueError("this needs logprobs; set logprobs to true")
        return value

    def stops(self) -> list[str]:
        """The stop strings, empty ones left out."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in stops if text]

    def answer_tokens(self, default: int) -> int:
        """The most tokens of an answer."""
        return self.max_completion_tokens or self.max_tokens or default

    def structured_outputs(self) -> dict[str, Any] | None:
        """What ``response_format`` asks of the engine; None: free text."""
        match self.response_format:
            case JsonObjectFormat():
                return {"json_object": True}
            case JsonSchemaFormat(json_schema=json_schema):
                return {"json": json_schema.schema_}
        return None
