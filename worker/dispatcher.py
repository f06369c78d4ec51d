"""Find work that waits although no hint is on its way, and send the hint again.

Every worker runs one: a hint sent twice does no harm, since work is claimed once. A lost broker,
a lost message and a dead worker all end here.
"""

import threading
import time
from collections.abc import Callable, Sequence

import structlog
from kombu.exceptions import KombuError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from manyicl_core.settings import Settings
from manyicl_core.store.hints import BUILD_CONTEXT, RUN_BATCH, RUN_EVALUATION, RUN_JOB, publish_hint, waiting_hints
from manyicl_core.store.leases import claimable_ids
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Batch, Context, Evaluation, Job, Leased

Work = Sequence[tuple[str, type[Leased]]]
"""The Celery tasks of one queue, each with the table of its rows."""

JOBS_WORK: Work = ((RUN_JOB, Job), (RUN_EVALUATION, Evaluation))
HOSTING_WORK: Work = ((BUILD_CONTEXT, Context), (RUN_BATCH, Batch))

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
        waiting = [(celery_task, id_) for celery_task, table in work for id_ in claimable_ids(session, table, _BATCH)]
    if not waiting or waiting_hints(queue):
        return 0
    for celery_task, id_ in waiting:
        publish_hint(celery_task, id_)
    return len(waiting)
