"""Say every few seconds that this worker lives: plans and waiting jobs tell where none does."""

import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError

from manyicl_core.ids import new_id
from manyicl_core.store.session import transaction
from manyicl_core.store.workers import record_alive, record_gone

_LEAST_SECONDS = 15.0

_log = structlog.get_logger(__name__)


class Presence:
    """A thread that writes this worker's row every ``pause`` seconds, and takes it away at the end."""

    def __init__(self, queue: str, pause: float) -> None:
        self._id = new_id("worker-")
        self._queue = queue
        self._pause = pause
        self._stopping = threading.Event()

    def start(self, places: int) -> None:
        """Begin; the worker does so many things at a time."""
        threading.Thread(target=self._run, args=(places,), name="presence", daemon=True).start()

    def stop(self) -> None:
        """End, within moments."""
        self._stopping.set()

    def _run(self, places: int) -> None:
        while True:
            try:
                with transaction() as session:
                    record_alive(session, self._id, self._queue, places, max(_LEAST_SECONDS, 3 * self._pause))
            except SQLAlchemyError as error:
                _log.warning("database_away", reason=str(error).splitlines()[0])
            if self._stopping.wait(self._pause):
                break
        with transaction() as session:
            record_gone(session, self._id)
