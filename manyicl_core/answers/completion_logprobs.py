"""Log-probabilities of a completion as OpenAI's legacy ``logprobs``."""

import codecs
from collections.abc import Set
from typing import Any

from manyicl_core.answers.completion_call import Prompt
from manyicl_core.answers.objects import TextLogprobs


class CompletionLogprobs:
    """Those of one choice, piece by piece: offsets count on.

    An offset is the number of characters of the choice's text before the token. A character of
    several tokens begins with the first of them, and special tokens take no room where the text
    leaves them out.

    Args:
        special: ids of tokens that an answer's text leaves out.
        prompt: what the choice repeats before its answer.
    """

    def __init__(self, special: Set[int], prompt: Prompt | None = None) -> None:
        self._special = special
        self._prompt = prompt
        self._tokens = 0
        self._characters = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def of(self, told: dict[str, Any] | None) -> TextLogprobs | None:
        """``choice.logprobs`` out of the engine's, ours or vLLM's; None: it was not asked for."""
        if told is None:
            return None
        offsets = told["text_offset"]
        if "bytes" in told:  # vLLM's offsets count on as they are
            tokens = zip(told["token_ids"], told["tokens"], told["bytes"], strict=True)
            offsets = [self._offset(*token) for token in tokens]
        chosen = zip(told["top_logprobs"], told["tokens"], told["token_logprobs"], strict=True)
        return {
            "tokens": told["tokens"],
            "token_logprobs": told["token_logprobs"],
            "top_logprobs": [_with_chosen(*entry) for entry in chosen],
            "text_offset": offsets,
        }

    def _offset(self, token_id: int, token: str, octets: list[int]) -> int:
        offset = self._characters
        number, self._tokens = self._tokens, self._tokens + 1
        repeated = self._prompt is not None and number < self._prompt.tokens
        if self._prompt is not None and number < self._prompt.silent:
            shown = b""
        elif token_id in self._special:
            shown = token.encode() if repeated else b""
        else:
            shown = bytes(octets)
        self._characters += len(self._decoder.decode(shown))
        return offset


def _with_chosen(top: dict[str, float] | None, token: str, logprob: float) -> dict[str, float] | None:
    """The most likely tokens and, beside them, the one that stands there; OpenAI always tells it too."""
    return top if top is None or token in top else {**top, token: logprob}
