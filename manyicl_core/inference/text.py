"""Tokens back to text while they come, ended by stop strings wherever these start."""

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class TextStream:
    """Feeds on tokens and gives text that can no longer turn out to begin a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: list[str]) -> None:
        self._tokenizer = tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._stop = stop
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain after ``token``; ``stopped`` tells that a stop string came."""
        assert not self.stopped
        self._held += self._decoded(token)
        found = [(start + len(text), start) for text in self._stop if (start := self._held.find(text)) >= 0]
        if found:
            self.stopped = True
            # The one that is complete first, as if the text came character by character.
            _, start = min(found)
            self._held = self._held[:start]
            return self.flush()
        certain = len(self._held) - self._unsure()
        text, self._held = self._held[:certain], self._held[certain:]
        return text

    def flush(self) -> str:
        """What is still held back, when nothing more comes."""
        text, self._held = self._held, ""
        return text

    def _decoded(self, token: int) -> str:
        try:
            return self._decoder.step(self._tokenizer, token) or ""
        except Exception:  # the library's own: bytes that are no text, before others (vllm-project/vllm#17448)
            self._decoder = DecodeStream(skip_special_tokens=True)
            return self._decoder.step(self._tokenizer, token) or ""

    def _unsure(self) -> int:
        """Length of the longest tail that may begin a stop string."""
        longest = max((len(text) - 1 for text in self._stop), default=0)
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(text.startswith(self._held[-length:]) for text in self._stop):
                return length
        return 0
