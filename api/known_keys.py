"""Keys that held a moment ago: one that asks a hundred times a second is looked up four times a second."""

import hashlib
import time
from dataclasses import dataclass

from manyicl_core.store.projects.service import Caller

KNOWN_SECONDS = 0.5
"""A key that another process revokes is good here for so long at most."""

_MOST = 10_000


@dataclass(slots=True)
class _Known:
    caller: Caller
    ask_at: float
    until: float


class KnownKeys:
    """Who holds which key, for ``KNOWN_SECONDS`` after it was looked up.

    Half-way one request looks it up anew while the others go on: not all of them at once at the end.
    """

    def __init__(self) -> None:
        self._callers: dict[bytes, _Known] = {}

    def find(self, secret: str) -> Caller | None:
        """Who holds the key, if that is known; None: look it up."""
        known = self._callers.get(_digest(secret))
        now = time.monotonic()
        if known is None or now >= known.until:
            return None
        if now >= known.ask_at:
            known.ask_at = known.until
            return None
        return known.caller

    def remember(self, secret: str, caller: Caller) -> None:
        """The key has just been looked up."""
        if len(self._callers) >= _MOST:
            self._callers.clear()
        now = time.monotonic()
        self._callers[_digest(secret)] = _Known(caller, now + KNOWN_SECONDS / 2, now + KNOWN_SECONDS)

    def forget(self) -> None:
        """A key has changed: look all of them up again."""
        self._callers.clear()


KNOWN_KEYS = KnownKeys()
"""Those of this process."""


def _digest(secret: str) -> bytes:
    """The secret itself is kept nowhere."""
    return hashlib.sha256(secret.encode()).digest()
