"""Ask the engine, and wait for it while it restarts or has no room: nothing here is in a hurry."""

import asyncio
import threading
from typing import Any

import structlog

from manyicl_core.engines.client import EngineClient
from manyicl_core.errors import ENGINE_ERROR, DeadlineExceeded, Overloaded, Unavailable, UserError
from worker.attempt import WorkFailed
from worker.process import ProcessDied

_PAUSE_MS = 500
_MOST_FAILURES = 5
"""Of the engine at one request, not for want of a connection or of room."""

_log = structlog.get_logger(__name__)


class PatientEngine:
    """Answers come in the end, or ``stop`` is set."""

    def __init__(self, client: EngineClient, stop: threading.Event) -> None:
        self._client = client
        self._stop = stop

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a completion.

        Raises:
            WorkFailed: the engine refuses the request, now and for ever.
            ProcessDied: the work was lost or cancelled meanwhile.
        """
        failures = 0
        while not self._stop.is_set():
            try:
                return await self._client.complete("/v1/completions", body)
            except Overloaded as error:
                pause = error.retry_after_ms or 0
            except (Unavailable, DeadlineExceeded) as error:
                _log.warning("engine_away", reason=error.message)
                pause = _PAUSE_MS
                failures += error.code == ENGINE_ERROR
                if failures >= _MOST_FAILURES:
                    raise WorkFailed("engine_error", f"the engine fails at the context: {error.message}") from error
            except UserError as error:
                raise WorkFailed("engine_error", f"the engine refuses the context: {error.message}") from error
            await asyncio.sleep(pause / 1000)
        raise ProcessDied("stopped while it waited for the engine")
