"""The engine's HTTP bodies: vLLM's shape, so that a vLLM server can take its place.

``prefix_tokens`` and ``deadline_seconds`` are our own: vLLM finds shared prefixes itself and ignores them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class StructuredOutputs(BaseModel):
    """vLLM's ``structured_outputs``: exactly one of a closed set of answers, a JSON Schema and a regular expression."""

    model_config = ConfigDict(extra="forbid")

    choice: Annotated[list[str], Field(min_length=1)] | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="json")
    json_object: Literal[True] | None = None
    regex: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "StructuredOutputs":
        if sum(value is not None for value in (self.choice, self.json_schema, self.json_object, self.regex)) != 1:
            raise ValueError("give exactly one of choice, json, json_object and regex")
        return self


class StreamOptions(BaseModel):
    """OpenAI's ``stream_options``; the usage comes at the end in any case."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = True


class Placed(BaseModel):
    """Which model and tenant a request is for, and when it is of use."""

    model_config = ConfigDict(extra="ignore")

    model: str
    cache_salt: Annotated[str, Field(max_length=128)] = ""
    user: Annotated[str, Field(max_length=128)] = ""
    priority: int = 0
    deadline_seconds: Annotated[float, Field(gt=0)] | None = None


class CompletionRequest(Placed):
    """Token ids in, text out; a list of prompts is answered in their order."""

    prompt: Tokens | Annotated[list[Tokens], Field(min_length=1, max_length=2048)]
    prefix_tokens: int = Field(default=0, ge=0)
    max_tokens: int = Field(default=256, ge=0)
    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = None
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    logit_bias: dict[Annotated[int, Field(ge=0)], Annotated[float, Field(ge=-100, le=100)]] = {}
    n: int = Field(default=1, ge=1, le=128)
    stop: list[str] = []
    stop_token_ids: list[int] = []
    structured_outputs: StructuredOutputs | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool = False
    ignore_eos: bool = False

    def prompts(self) -> list[list[int]]:
        """All prompts."""
        # By the first entry alone: looking at each of thousands of tokens would take half of a request's time.
        return self.prompt if isinstance(self.prompt[0], list) else [self.prompt]


class LabelScoresRequest(Placed):
    """Prompts, and labels as token ids, each with its stop token; with a ``seed`` the scores are always the same."""

    prompts: Annotated[list[Tokens], Field(min_length=1, max_length=2048)]
    prefix_tokens: int = Field(default=0, ge=0)
    labels: Annotated[list[Tokens], Field(min_length=1, max_length=1000)]
    seed: int | None = None


class ForgetRequest(BaseModel):
    """A context whose prefix is to be kept no longer: what it was compiled with, and where fewer shots end."""

    model_config = ConfigDict(extra="ignore")

    model: str
    tokens: Tokens
    ends: list[int] = []
    cache_salt: Annotated[str, Field(max_length=128)] = ""


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> dict[str, Any]:
    """OpenAI's ``usage`` object."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }
