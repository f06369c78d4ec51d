"""What the engine is asked, and what it tells while it answers."""

from dataclasses import dataclass

from llguidance import LLMatcher

from manyicl_core.inference.answer import GREEDY, FinishReason, Sampling, TokenLogprob
from manyicl_core.method.labels import LabelTree


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A prompt for one model.

    Attributes:
        adapter: hash of the fine-tuned weights, or None for the base model.
        prompt: token ids.
        prefix_tokens: how many of them are a context, worth keeping compiled.
        salt: nobody's answer comes from a context with another salt.
        tenant: with whom the engine is fair.
        priority: lower first; a higher one gets what the lower ones leave.
        deadline: by ``time.monotonic``; the answer is of no use later.
    """

    adapter: str | None
    prompt: tuple[int, ...]
    prefix_tokens: int = 0
    salt: str = ""
    tenant: str = ""
    priority: int = 0
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Choices:
    """The answer is one of these labels."""

    labels: LabelTree


@dataclass(frozen=True, slots=True)
class Grammar:
    """The answer follows a compiled grammar of llguidance."""

    matcher: LLMatcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation(Query):
    """Write ``n`` answers; with ``echo`` tell the log-probabilities of the prompt's own tokens first."""

    max_tokens: int
    sampling: Sampling = GREEDY
    stop_texts: tuple[str, ...] = ()
    stop_tokens: frozenset[int] = frozenset()
    guide: Choices | Grammar | None = None
    n: int = 1
    echo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScoring(Query):
    """Tell the log-probability of each label (token ids, stop token included) as the whole answer.

    Attributes:
        alone: whether no other request shares its passes, so that its scores are the same bits every time.
    """

    labels: tuple[tuple[int, ...], ...]
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of answer ``index``; its last one has a ``finish_reason``.

    Attributes:
        logprobs: of the tokens in it, where they are asked for.
        completion_tokens: of this answer so far.
        cached_tokens: of the prompt, that needed no work.
    """

    index: int
    text: str
    completion_tokens: int
    cached_tokens: int
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """Of the prompt's tokens after the first one."""

    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class LabelScores:
    """A label scoring's result."""

    scores: tuple[float, ...]
    cached_tokens: int


class Refusal(Exception):
    """The engine does not answer; ``code`` and ``status`` say why in HTTP's terms."""

    status = 500
    code = "engine_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UnknownAdapter(Refusal):
    """The artifact store has no such weights."""

    status = 404
    code = "model_not_found"


class StorageAway(Refusal):
    """The artifact store does not answer."""

    status = 503
    code = "storage_unavailable"


class OutOfMemory(Refusal):
    """There is no memory for it."""

    status = 503
    code = "out_of_memory"


class ContextTooLarge(Refusal):
    """The context is larger than all contexts together may be."""

    status = 400
    code = "context_too_large"


class Overloaded(Refusal):
    """Too many requests wait already."""

    status = 429
    code = "engine_overloaded"

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DeadlineExceeded(Refusal):
    """The answer was not complete in time."""

    status = 504
    code = "deadline_exceeded"


Event = Delta | PromptLogprobs | LabelScores | Refusal
