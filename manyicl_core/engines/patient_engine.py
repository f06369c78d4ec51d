"""Ask the engine, and wait for it while it restarts or has no room: nothing here is in a hurry."""

import asyncio
import time
from typing import Any

import structlog

from manyicl_core.engines.client import CompletionEngine
from manyicl_core.errors import ENGINE_FAILURES, OUT_OF_MEMORY, UserError

_MOST_FAILURES = 5
"""Of the engine at one request, not for want of a connection or of room."""
_MEMORY_PAUSE_SECONDS = 15.0
"""What took the memory needs longer to end than a queue to move."""

_log = structlog.get_logger(__name__)


class PatientEngine:
    """Answers come in the end, unless the engine refuses a request, or fails at it again and again.

    Args:
        engine: is asked.
        most_seconds: how long one request may take when it is refused for the moment; None: for ever.
    """

    def __init__(self, engine: CompletionEngine, most_seconds: float | None = None) -> None:
        self._engine = engine
        self._most_seconds = most_seconds

    async def complete(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One whole answer; the errors are those of the engine.

        Without ``most_seconds`` they are final: their ``retry_after_ms`` is None.
        """
        failures = 0
        until = None if self._most_seconds is None else time.monotonic() + self._most_seconds
        while True:
            try:
                return await self._engine.complete(path, body)
            except UserError as error:
                if error.code in ENGINE_FAILURES:
                    _log.warning("engine_failed", code=error.code, reason=error.message)
                    failures += 1
                if failures == _MOST_FAILURES:
                    error.retry_after_ms = None
                if error.retry_after_ms is None:
                    raise
                pause = _MEMORY_PAUSE_SECONDS if error.code == OUT_OF_MEMORY else error.retry_after_ms / 1000
                if until is not None and time.monotonic() + pause > until:
                    raise
            await asyncio.sleep(pause)
