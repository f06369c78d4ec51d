"""What responses look like, in OpenAI's shape; ours is under ``manyicl``."""

from typing import Any, Literal

# Before Python 3.12 pydantic cannot read the one in typing.
from typing_extensions import TypedDict

from manyicl_core.answers.objects import ChosenTokenLogprob, PlainTold, Told

Status = Literal["in_progress", "completed", "incomplete", "failed"]


class OutputText(TypedDict):
    """A part of an answer."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[ChosenTokenLogprob]


class OutputMessage(TypedDict):
    """OpenAI's ``ResponseOutputMessage``."""

    id: str
    type: Literal["message"]
    status: Status
    role: Literal["assistant"]
    content: list[OutputText]


class InputTokensDetails(TypedDict):
    """Of the prompt's tokens, those that were compiled before; 0 where the engine does not tell."""

    cached_tokens: int
    cache_write_tokens: Literal[0]


class OutputTokensDetails(TypedDict):
    """No model here reasons apart from its answer."""

    reasoning_tokens: Literal[0]


class ResponseUsage(TypedDict):
    """OpenAI's ``ResponseUsage``."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class IncompleteDetails(TypedDict):
    """Why an answer is not whole."""

    reason: Literal["max_output_tokens"]


class ResponseError(TypedDict):
    """Why an answer failed on its way."""

    code: str
    message: str


class ResponseObject(TypedDict):
    """OpenAI's ``Response``; ``manyicl`` where demonstrations stand before the query."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Status
    background: Literal[False]
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputMessage]
    parallel_tool_calls: bool
    previous_response_id: None
    store: Literal[False]
    temperature: float
    text: dict[str, Any]
    tool_choice: Literal["none", "auto"]
    tools: list[Any]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage | None
    manyicl: Told | PlainTold | None
