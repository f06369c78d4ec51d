"""Renew a lease in a thread, and carry what ends the work to the process that works under it."""

import threading
import time
from types import TracebackType

import structlog
from sqlalchemy.exc import SQLAlchemyError

from manyicl_core.store.leases import Claim, LeaseLost, renew_lease
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Leased
from worker import shutdown
from worker.giving_up import hand_over

_MOST_SECONDS = 1.0
_LOOK_SECONDS = 0.2

_log = structlog.get_logger(__name__)


class Heartbeat:
    """Beats while the ``with`` block runs.

    Attributes:
        cancelled: somebody asked for the work to be cancelled.
        lost: another worker holds the work, or may, or it is over.
        stop: set in both cases, and when the worker is being stopped; the process must end.
    """

    def __init__(self, claim: Claim[Leased], lease_seconds: float) -> None:
        self.cancelled = False
        self.lost = False
        self.stop = threading.Event()
        self._claim = claim
        self._lease_seconds = lease_seconds
        # Often: a cancel is noticed by the same query.
        self._pause = min(_MOST_SECONDS, lease_seconds / 4)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.let_go()

    def let_go(self) -> None:
        """Renew no more."""
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        held_until = time.monotonic() + self._lease_seconds
        renew_at = time.monotonic() + self._pause
        while not self._over.wait(_LOOK_SECONDS):
            if shutdown.is_asked():
                self.stop.set()
            if not shutdown.is_due() and time.monotonic() < renew_at:
                continue
            renew_at = time.monotonic() + self._pause
            try:
                if shutdown.is_due():
                    # Whoever works does not get ready: a store that does not answer, a long step.
                    hand_over(self._claim)
                    raise LeaseLost(self._claim.id)
                with transaction() as session:
                    cancel = renew_lease(session, self._claim, self._lease_seconds)
                held_until = time.monotonic() + self._lease_seconds
            except LeaseLost:
                self.lost = True
                self.stop.set()
                return
            except SQLAlchemyError as error:
                # The process goes on: only the database can say that the work was lost, and every
                # write will ask it.
                _log.warning(
                    "database_away", reason=str(error).splitlines()[0], lease_over=time.monotonic() > held_until
                )
                continue
            if cancel:
                self.cancelled = True
                self.stop.set()
