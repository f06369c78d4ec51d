"""Keys that held a moment ago: one that asks a hundred times a second is looked up twice a second."""

import hashlib
import time

from manyicl_core.store.projects.service import Caller

KNOWN_SECONDS = 0.5
"""A key that another process revokes is good here for so long at most."""

_MOST = 10_000


class KnownKeys:
    """Who holds which key, for ``KNOWN_SECONDS`` after it was looked up."""

    def __init__(self) -> None:
        self._callers: dict[bytes, tuple[float, Caller]] = {}

    def find(self, secret: str) -> Caller | None:
        """Who holds the key, if that is known."""
        until, caller = self._callers.get(_digest(secret), (0.0, None))
        return caller if time.monotonic() < until else None

    def remember(self, secret: str, caller: Caller) -> None:
        """The key has just been looked up."""
        if len(self._callers) >= _MOST:
            self._callers.clear()
        self._callers[_digest(secret)] = time.monotonic() + KNOWN_SECONDS, caller

    def forget(self) -> None:
        """A key has changed: look all of them up again."""
        self._callers.clear()


KNOWN_KEYS = KnownKeys()
"""Those of this process."""


def _digest(secret: str) -> bytes:
    """The secret itself is kept nowhere."""
    return hashlib.sha256(secret.encode()).digest()
