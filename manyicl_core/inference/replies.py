"""From what the engine tells to OpenAI's completions, whole and streamed."""

from dataclasses import dataclass, field
from typing import Any

from manyicl_core.inference.answer import TokenLogprob
from manyicl_core.inference.requests import Delta, Event, PromptLogprobs
from manyicl_core.inference.vocabulary import Vocabulary


@dataclass(slots=True)
class Choice:
    """One answer as it comes in.

    Attributes:
        logprobs: of all its tokens so far; of an echoed prompt before them.
        asked: whether log-probabilities are shown.
    """

    asked: bool
    echoed: list[int] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    completion_tokens: int = 0
    cached_tokens: int = 0
    finish_reason: str | None = None

    def take(self, delta: Delta) -> None:
        """The answer's next piece."""
        self.text += delta.text
        self.logprobs += delta.logprobs
        self.completion_tokens, self.cached_tokens = delta.completion_tokens, delta.cached_tokens
        self.finish_reason = delta.finish_reason


def take(choices: list[Choice], prompt: int, n: int, event: Event) -> None:
    """Put what the engine tells of prompt number ``prompt`` where it belongs."""
    match event:
        case Delta():
            choices[prompt * n + event.index].take(event)
        case PromptLogprobs():
            for choice in choices[prompt * n : prompt * n + n]:
                choice.prompt_logprobs = event.logprobs
        case _:
            raise AssertionError(event)


def whole(index: int, choice: Choice, vocabulary: Vocabulary) -> dict[str, Any]:
    """A complete choice."""
    # A prompt is told as it was asked, its special tokens too; an answer's are left out.
    text = vocabulary.text(choice.echoed) + choice.text
    return _choice(index, choice.finish_reason, text, _completion(choice, vocabulary))


def piece(index: int, asked: bool, delta: Delta, vocabulary: Vocabulary) -> dict[str, Any]:
    """A choice of a streamed chunk."""
    part = Choice(asked)
    part.take(delta)
    return _choice(index, delta.finish_reason, delta.text, _completion(part, vocabulary))


def _choice(index: int, finish: str | None, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
    return {"index": index, "text": text, "finish_reason": finish, "logprobs": logprobs}


def _token(token: int, logprob: float, vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "token_id": token,
        "token": vocabulary.token_text(token),
        "logprob": logprob,
        "bytes": vocabulary.bytes(token),
    }


def _top(entry: TokenLogprob, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    return [_token(token, logprob, vocabulary) for token, logprob in entry.top]


def _by_text(top: list[dict[str, Any]]) -> dict[str, float]:
    """The log-probability of each text; of tokens that look the same, parts of a character, the best one's."""
    found: dict[str, float] = {}
    for token in top:
        found.setdefault(token["token"], token["logprob"])
    return found


def _completion(choice: Choice, vocabulary: Vocabulary) -> dict[str, Any] | None:
    """OpenAI's ``logprobs`` of a completion, the echoed prompt's first; its first token has none."""
    if not choice.asked:
        return None
    entries: list[TokenLogprob | None] = [*choice.prompt_logprobs, *choice.logprobs]
    ids = [entry.token for entry in entries if entry is not None]
    if choice.echoed:
        entries, ids = [None, *entries], [choice.echoed[0], *ids]
    shown = [_token(token, 0.0, vocabulary) for token in ids]
    tops = [None if entry is None else _top(entry, vocabulary) for entry in entries]
    offsets, offset = [], 0
    for token in shown:
        offsets.append(offset)
        offset += len(token["token"])
    return {
        "tokens": [token["token"] for token in shown],
        "token_ids": ids,
        "bytes": [token["bytes"] for token in shown],
        "token_logprobs": [None if entry is None else entry.logprob for entry in entries],
        "top_logprobs": [None if top is None else _by_text(top) for top in tops],
        "text_offset": offsets,
        "top": tops,
    }
