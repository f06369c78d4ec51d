"""Tell the workers that work waits. Only a hint: the database knows, and losing one costs seconds."""

from functools import lru_cache
from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from manyicl_core.settings import get_settings, required

RUN_JOB = "manyicl.run_job"
RUN_EVALUATION = "manyicl.run_evaluation"
MEASURE = "manyicl.measure"
BUILD_CONTEXT = "manyicl.hosting.build_context"
RUN_BATCH = "manyicl.hosting.run_batch"

JOBS_QUEUE = "manyicl.jobs"
HOSTING_QUEUE = "manyicl.hosting"
HOSTING_WORKER = "hosting"
"""What the Celery name of a worker of the hosting queue starts with, before the ``@``."""

_HOSTING_TASKS = f"{HOSTING_QUEUE}.*"
_log = structlog.get_logger(__name__)


@lru_cache(maxsize=1)
def get_celery() -> Celery:
    """The Celery application of this process (settings: reference of Celery, long jobs)."""
    broker = required(get_settings(), "broker_url")
    celery = Celery("manyicl", broker=broker)
    celery.conf.update(
        # The database owns redelivery: a message is acknowledged when it is taken.
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        task_ignore_result=True,
        # No job waits behind a long one in a busy worker's memory.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        task_default_queue=JOBS_QUEUE,
        task_routes={_HOSTING_TASKS: {"queue": HOSTING_QUEUE}},
        task_serializer="json",
        accept_content=["json"],
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1},
        broker_transport_options={
            "socket_connect_timeout": 2,
            "socket_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 30,
        },
    )
    return celery


def publish_hint(celery_task: str, id_: str) -> None:
    """Send one hint; with the broker away it is dropped, and the dispatcher finds the work later.

    Args:
        celery_task: such as ``RUN_JOB``; its name says which queue.
        id_: of the row, or what else it is about; for the log.
    """
    try:
        get_celery().send_task(celery_task, args=[id_])
    except OperationalError as error:
        _log.warning("hint_not_sent", id=id_, reason=str(error))


def waiting_hints(queue: str) -> int:
    """How many hints of a queue no worker has taken yet."""
    with get_celery().connection_for_read() as connection:
        channel: Any = connection.default_channel  # kombu types only what all its transports share
        return int(channel.client.llen(queue))
