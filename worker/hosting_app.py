"""The Celery worker of the hosting queue: its tasks, and the dispatcher's thread beside it.

What it does is seconds of drawing and encoding and waiting for the engine, several at a time, so
threads are enough, and nothing of it ever waits behind a training job:

``celery -A worker.hosting_app worker --pool=threads --queues=manyicl.hosting --hostname=hosting@%h``
"""

from typing import Any

from celery.signals import worker_ready, worker_shutting_down

from manyicl_core.logging import configure_logging
from manyicl_core.settings import get_settings
from manyicl_core.store.hints import HOSTING_QUEUE, get_celery
from worker.dispatcher import HOSTING_WORK, Dispatcher, send_missing_hints

app = get_celery()
_dispatcher = Dispatcher(get_settings(), lambda: send_missing_hints(HOSTING_QUEUE, HOSTING_WORK))
configure_logging("hosting", get_settings().log_json)


@worker_ready.connect
def _start_dispatcher(**_: Any) -> None:
    _dispatcher.start()


@worker_shutting_down.connect
def _stop_dispatcher(**_: Any) -> None:
    _dispatcher.stop()
