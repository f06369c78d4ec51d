"""Tokens back to text while they come, ended by stop strings wherever these start."""

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from manyicl_core.stop_strings import StopSearch


class TextStream:
    """Feeds on tokens and gives text that can no longer turn out to begin a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: list[str]) -> None:
        self._tokenizer = tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)
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
