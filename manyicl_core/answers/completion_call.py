"""What a completion asks of the engine."""

from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from manyicl_core.answers.answer_text import AnswerText, LabelText, MatchedText, PlainText, StoppedText
from manyicl_core.answers.completion_request import CreateCompletion
from manyicl_core.answers.objects import PlainTold, Told, Usage
from manyicl_core.answers.prompts import (
    answer_stops,
    engine_fields,
    find_target,
    hosted_fields,
    prompts_behind,
    told,
)
from manyicl_core.base_models.catalog import base_model_folder
from manyicl_core.base_models.tokenizer import load_raw_tokenizer
from manyicl_core.errors import InvalidRequest
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.contexts.service import ANSWER_ROOM, HostedPrompt

_DEFAULT_TOKENS = 16  # OpenAI's
_MAX_TOKENS = 262_144
_MAX_ANSWERS = 2048


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that an answer may repeat.

    Attributes:
        text: as the client wrote it, or what its token ids say.
        decoded: what the engine repeats, special tokens included.
        tokens: how many there are.
        silent: how many at its start are not in ``text``, because the tokenizer put them there.
    """

    text: str
    decoded: str
    tokens: int
    silent: int


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """A request to the engine's ``/v1/completions``.

    Attributes:
        hosted: the first prompt, when they stand behind demonstrations.
        echoed: the prompts, when the answer repeats them.
        special: ids of tokens that an answer's text leaves out.
        stops: what ends the answer to a hosted prompt, as the client reads it.
        plain: what is told of a tuned model where no demonstrations stand before the prompts.
    """

    body: dict[str, Any]
    hosted: HostedPrompt | None
    echoed: tuple[Prompt, ...]
    special: frozenset[int]
    stops: tuple[str, ...] = ()
    plain: PlainTold | None = None

    def told(self, usage: Usage | None = None) -> Told | PlainTold | None:
        """The answer's ``manyicl`` object; with the engine's ``usage`` at the end."""
        return self.plain if self.hosted is None else told(self.hosted, usage)

    def new_text(self) -> PlainText:
        """What turns the engine's text into an answer."""
        if self.hosted is None:
            return PlainText()
        if self.hosted.labels is not None:
            return LabelText(self.hosted.labels)
        is_matched = "regex" in self.body.get("structured_outputs", {})
        return StoppedText(MatchedText() if is_matched else AnswerText(), self.stops)

    @property
    def is_streamable(self) -> bool:
        """Whether the engine can stream it: one prompt, which is not repeated."""
        return not self.echoed and not isinstance(self.body["prompt"][0], list)


def completion_call(
    project_id: str, artifacts: ArtifactStore, body: CreateCompletion, priority: int = 0
) -> CompletionCall:
    """The call that answers ``body``; arguments and errors are those of ``chat_call``."""
    target = find_target(project_id, artifacts, body.model, body.manyicl)
    tokenizer = load_raw_tokenizer(base_model_folder(target.model.base))
    request = engine_fields(target, priority) | body.sampling()
    if (outputs := body.structured_outputs()) is not None:
        request["structured_outputs"] = outputs
    if body.logprobs is not None:
        request["logprobs"] = body.logprobs
    hosted: HostedPrompt | None = None
    if target.hosted:
        prompts = prompts_behind(artifacts, target, _queries(body), "prompt")
        hosted = prompts[0]
        _check_size([hosted.context_tokens + len(prompt.query) for prompt in prompts], body.n or 1)
        tokens = [prompt.tokens for prompt in prompts]
        max_tokens = ANSWER_ROOM if body.max_tokens is None else body.max_tokens
        request |= hosted_fields(hosted, body, max_tokens)
    else:
        tokens = [tokenizer.encode(prompt).ids if isinstance(prompt, str) else prompt for prompt in body.prompt]
        _check_size(list(map(len, tokens)), body.n or 1)
        request |= {
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "max_tokens": _DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens,
            "echo": bool(body.echo),
        }
    request["prompt"] = tokens if len(tokens) > 1 else tokens[0]
    echoed = _echoed(tokenizer, body, tokens) if body.echo else ()
    stops = () if hosted is None else answer_stops(hosted, body)
    return CompletionCall(request, hosted, echoed, _special(tokenizer), stops, target.told_plain())


def _queries(body: CreateCompletion) -> list[str]:
    """The prompts as queries of a task."""
    if body.echo:
        raise InvalidRequest(
            "echo: behind demonstrations the prompt is more than what you sent; leave echo out. "
            "/v1/classifications tells how probable labels are",
            "echo",
        )
    if body.manyicl is not None and body.manyicl.label_probabilities:
        raise InvalidRequest(
            "manyicl.label_probabilities: a completion tells none; ask /v1/classifications",
            "manyicl.label_probabilities",
        )
    queries = [prompt for prompt in body.prompt if isinstance(prompt, str)]
    if not queries:
        raise InvalidRequest("prompt: behind demonstrations a prompt is the text of a query, not token ids", "prompt")
    if not all(query.strip() for query in queries):
        raise InvalidRequest("prompt: a query is empty; give it some text", "prompt")
    return queries


def _check_size(lengths: list[int], n: int) -> None:
    """Refuse what would take too much work or memory, before either is spent; in tokens a prompt."""
    if not all(lengths):
        raise InvalidRequest("prompt: a prompt has no tokens; give it some text", "prompt")
    for what, size, most in (
        ("tokens", sum(lengths), _MAX_TOKENS),
        ("answers", len(lengths) * n, _MAX_ANSWERS),
    ):
        if size > most:
            raise InvalidRequest(
                f"prompt: {size} {what}, and at most {most} are taken at once; send fewer prompts in each request",
                "prompt",
            )


def _echoed(tokenizer: Tokenizer, body: CreateCompletion, tokens: list[list[int]]) -> tuple[Prompt, ...]:
    prompts = []
    for prompt, ids in zip(body.prompt, tokens, strict=True):
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        if isinstance(prompt, str):
            silent = len(ids) - len(tokenizer.encode(prompt, add_special_tokens=False).ids)
            prompts.append(Prompt(prompt, decoded, len(ids), silent))
        else:
            prompts.append(Prompt(decoded, decoded, len(ids), 0))
    return tuple(prompts)


def _special(tokenizer: Tokenizer) -> frozenset[int]:
    return frozenset(id_ for id_, token in tokenizer.get_added_tokens_decoder().items() if token.special)
