"""A planned stop: the worker is told to end (SIGTERM), hands over what it holds, and nothing counts as lost.

Whoever tells it kills it when a grace is over: Docker after 10 seconds. So it has a time of its own for that,
``stop_seconds``, and ends by itself before. The processes of its pool fork from the one that is told, and look into
the same memory (docs/decisions/0022).
"""

import os
import signal
import sys
import threading
import time
from multiprocessing.sharedctypes import RawValue

import structlog

from manyicl_core.settings import get_settings

_LAST_SECONDS = 2.0
"""Before the end: what a process has not done until then, it no longer waits for."""

# When it was told to stop, by the machine's monotonic clock; 0: not yet. No lock: a process that is killed holds none.
_asked_at = RawValue("d", 0.0)

_log = structlog.get_logger(__name__)


def ask() -> None:
    """Begin to stop: no work is taken any more, and this process ends in ``stop_seconds``, whatever still runs."""
    if not is_asked():
        _asked_at.value = time.monotonic()
        end = threading.Timer(get_settings().stop_seconds, _end)
        end.daemon = True
        end.start()


def is_asked() -> bool:
    """Whether work should be brought to a point where another worker can go on."""
    return bool(_asked_at.value > 0)


def is_due() -> bool:
    """Whether work must be handed over as it is."""
    return is_asked() and time.monotonic() > _asked_at.value + get_settings().stop_seconds - _LAST_SECONDS


def leave_signals_to_the_worker() -> None:
    """In a process of the pool: a SIGTERM to the whole group is for the worker's main process, which tells all."""
    signal.signal(signal.SIGTERM, lambda *_: None)


def _end() -> None:
    """End now; the kernel takes the pool's processes and their children along."""
    _log.warning("stopped_late")
    sys.stdout.flush()
    os._exit(0)
