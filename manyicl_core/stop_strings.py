"""Text that comes in pieces, ended by stop strings wherever these start."""

from collections.abc import Sequence


class StopSearch:
    """Gives text that can no longer turn out to begin a stop string; after one there is none."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False

    def push(self, piece: str) -> str:
        """The text that is certain after ``piece``; ``stopped`` tells that a stop string came."""
        if self.stopped:
            return ""
        self._held += piece
        found = [(start + len(text), start) for text in self._stops if (start := self._held.find(text)) >= 0]
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

    def _unsure(self) -> int:
        """Length of the longest tail that may begin a stop string."""
        longest = max((len(text) - 1 for text in self._stops), default=0)
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(text.startswith(self._held[-length:]) for text in self._stops):
                return length
        return 0
