"""What answers look like, in OpenAI's shape; ours is under ``manyicl``."""

from typing import Literal, NotRequired

# Before Python 3.12 pydantic cannot read the one in typing.
from typing_extensions import TypedDict

from manyicl_core.method.shot_warnings import Warned


class CachedTokens(TypedDict):
    """Of the prompts' tokens, those that were compiled before; None: the engine does not tell, as vLLM may."""

    cached_tokens: int | None


class Usage(TypedDict):
    """OpenAI's ``CompletionUsage``."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: NotRequired[CachedTokens | None]


class PlainTold(TypedDict):
    """What a tuned model that is asked without a task could be asked; ``tasks`` maps names to the ids of models."""

    tasks: dict[str, str]
    warnings: list[Warned]


class Told(TypedDict):
    """The demonstrations that an answer stands behind.

    Attributes:
        cached_tokens: how many of the prompts' tokens were compiled before; left out in a stream's chunks, and where
            the engine does not tell.
        label_probabilities: of every label, where all of them were scored.
        warnings: left out where there is none.
    """

    context: str | None
    shots: int
    context_tokens: int
    cached_tokens: NotRequired[int]
    label_probabilities: NotRequired[dict[str, float]]
    warnings: NotRequired[list[Warned]]


class TokenLogprob(TypedDict):
    """A token as the model wrote it."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChosenTokenLogprob(TokenLogprob):
    """A token of the answer, and the most likely ones in its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(TypedDict):
    """OpenAI's ``ChoiceLogprobs``."""

    content: list[ChosenTokenLogprob]
    refusal: None


class ChatMessage(TypedDict):
    """OpenAI's ``ChatCompletionMessage``."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(TypedDict):
    """One answer to a chat."""

    index: int
    message: ChatMessage
    finish_reason: str | None
    logprobs: ChatLogprobs | None


class ChatCompletion(TypedDict):
    """OpenAI's ``ChatCompletion``; ``manyicl`` where the model is tuned or demonstrations stand before the query."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str | None
    manyicl: Told | PlainTold | None


class TextLogprobs(TypedDict):
    """OpenAI's legacy ``Logprobs``; the first token of an echoed prompt has no probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(TypedDict):
    """One continuation of a prompt."""

    index: int
    text: str
    finish_reason: str | None
    logprobs: TextLogprobs | None


class TextCompletion(TypedDict):
    """OpenAI's ``Completion``; ``manyicl`` where the model is tuned or demonstrations stand before the query."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    system_fingerprint: str | None
    manyicl: Told | PlainTold | None


class Classification(TypedDict):
    """One input's label; ``label_mass`` is how probable the model finds the labels among all texts."""

    object: Literal["classification"]
    index: int
    label: str
    probability: float
    probabilities: dict[str, float]
    label_mass: float


class ClassificationList(TypedDict):
    """The labels of all inputs, in their order."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Classification]
    usage: Usage
    manyicl: Told


AnswerObject = ChatCompletion | TextCompletion | ClassificationList
