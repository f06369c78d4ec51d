"""Tokens back to text while they come, ended by stop strings wherever these start."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from manyicl_core.stop_strings import StopSearch

_TAIL = 8
"""Tokens of a prompt that tell how a text goes on behind it; a few more where it would start within a character."""
_MOST_BYTES = 4  # of a character


class TextStream:
    """Feeds on tokens and gives text that can no longer turn out to begin a stop string.

    Args:
        before: tokens that the text follows: many tokenizers take the first space of a text for their own.
    """

    def __init__(self, tokenizer: Tokenizer, stop: list[str], before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._decoder = DecodeStream(ids=_whole_tail(tokenizer, before), skip_special_tokens=True)
        self._search = StopSearch(stop)

    @property
    def stopped(self) -> bool:
        """Whether a stop string came."""
        return self._search.stopped

    def push(self, token: int) -> str:
        """The text that is certain after ``token``; ``stopped`` tells that a stop string came."""
        assert not self.stopped
        return self._search.push(self._decoded(token))

    def flush(self) -> str:
        """What is still held back, when nothing more comes."""
        return self._search.flush()

    def _decoded(self, token: int) -> str:
        try:
            return self._decoder.step(self._tokenizer, token) or ""
        except Exception:  # the library's own: bytes that are no text, before others (vllm-project/vllm#17448)
            self._decoder = DecodeStream(skip_special_tokens=True)
            return self._decoder.step(self._tokenizer, token) or ""


def _whole_tail(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[int]:
    """The last of ``tokens``, of which the text is whole; none where they end within a character."""
    for length in range(_TAIL, _TAIL + _MOST_BYTES):
        tail = list(tokens[-length:])
        if not tokenizer.decode(tail, skip_special_tokens=True).endswith("\ufffd"):
            return tail
    return []  # what is within a character would be told as new
