"""The engine's HTTP bodies: vLLM's shape, so that a vLLM server can take its place.

``prefix_tokens`` is the one field of our own: vLLM finds shared prefixes itself and ignores it.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class StructuredOutputs(BaseModel):
    """vLLM's ``structured_outputs``; only a closed set of answers is known here."""

    model_config = ConfigDict(extra="forbid")

    choice: list[str] = Field(min_length=1)


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore")

    model: str
    max_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = None
    stop: list[str] = []
    stream: bool = False


class CompletionRequest(_Request):
    """Token ids in, text out."""

    prompt: Annotated[list[int], Field(min_length=1)]
    prefix_tokens: int = Field(default=0, ge=0)
    stop_token_ids: list[int] = []
    structured_outputs: StructuredOutputs | None = None


class ChatMessage(BaseModel):
    """One message, its content as one text."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatRequest(_Request):
    """Messages in, through the base model's own chat template; text out."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> dict[str, Any]:
    """OpenAI's ``usage`` object."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }
