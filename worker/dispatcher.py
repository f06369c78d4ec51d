"""Find work that waits although no hint is on its way, and send the hint again.

Every worker runs one: a hint sent twice does no harm, since work is claimed once. A lost broker,
a lost message and a dead worker all end here.
"""

import threading
import time
from collections.abc import Callable, Mapping

import structlog
from kombu.exceptions import KombuError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from manyicl_core.settings import Settings
from manyicl_core.store.fair_queue import waiting_work
from manyicl_core.store.hints import (
    BUILD_CONTEXT,
    JOBS_QUEUE,
    MEASURE,
    RUN_BATCH,
    RUN_EVALUATION,
    RUN_JOB,
    publish_hint,
    waiting_hints,
)
from manyicl_core.store.measurements.service import is_measurement_wanted
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Batch, Context, Evaluation, Job, Leased
from manyicl_core.store.workers import job_places

Work = Mapping[type[Leased], str]
"""The tables of one queue, each with the Celery task of its rows."""

JOBS_WORK: Work = {Job: RUN_JOB, Evaluation: RUN_EVALUATION}
HOSTING_WORK: Work = {Context: BUILD_CONTEXT, Batch: RUN_BATCH}

_BATCH = 100

_log = structlog.get_logger(__name__)


class Dispatcher:
    """A thread that calls ``look`` every ``dispatch_seconds``, whatever the database and the broker do."""

    def __init__(self, settings: Settings, look: Callable[[], object]) -> None:
        self._look = look
        self._pause = settings.dispatch_seconds
        self._lease_seconds = settings.lease_seconds
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to look, in a thread of its own."""
        threading.Thread(target=self._run, name="dispatcher", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()

    def _run(self) -> None:
        quiet_until = 0.0
        while not self._stopping.wait(self._pause):
            if time.monotonic() < quiet_until:
                continue
            try:
                self._look()
            except SQLAlchemyError as error:
                # While the database was away nobody could renew: every lease looks expired.
                quiet_until = time.monotonic() + self._lease_seconds
                _log.warning("database_away", reason=str(error).splitlines()[0])
            except (RedisError, KombuError, OSError) as error:
                _log.warning("broker_away", reason=str(error))
            except Exception:
                # Whatever it was, the next look may do better; without looks, lost work stays lost.
                _log.exception("look_failed")


def send_missing_hints(queue: str, work: Work) -> int:
    """Send a hint for all of ``work`` that waits, unless hints are still in its queue; say how many."""
    with transaction() as session:
        waiting = waiting_work(session, list(work), _BATCH)
    if not waiting or waiting_hints(queue):
        return 0
    for row in waiting:
        publish_hint(work[row.table], row.id)
    return len(waiting)


def send_measurement_hint() -> None:
    """Send a hint for a measurement that is wanted, where a worker is free for it and no hint is on its way."""
    with transaction() as session:
        if not is_measurement_wanted(session) or not job_places(session, JOBS_QUEUE).free:
            return
    if not waiting_hints(JOBS_QUEUE):
        publish_hint(MEASURE, "next")
