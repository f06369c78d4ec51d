"""The Celery worker of jobs and evaluations: its tasks, and the dispatcher's thread beside it.

``celery -A worker.celery_app worker --pool=prefork --without-gossip --without-mingle``
"""

from typing import Any

from celery.signals import task_prerun, worker_ready, worker_shutting_down

from manyicl_core.logging import configure_logging
from manyicl_core.settings import get_settings
from manyicl_core.store.hints import JOBS_QUEUE, MEASURE, RUN_EVALUATION, RUN_JOB, get_celery
from worker import shutdown
from worker.dispatcher import JOBS_WORK, Dispatcher, send_measurement_hint, send_missing_hints
from worker.measuring import measure_next
from worker.next_work import run_next_job
from worker.presence import Presence

app = get_celery()


def _look() -> None:
    if not send_missing_hints(JOBS_QUEUE, JOBS_WORK):
        send_measurement_hint()


_dispatcher = Dispatcher(get_settings(), _look)
_presence = Presence(JOBS_QUEUE, get_settings().dispatch_seconds)
configure_logging("worker", get_settings().log_json)


@app.task(name=RUN_JOB, ignore_result=True)
def run_job_task(job_id: str) -> None:
    """Run what comes next: this job, or what has waited longer."""
    run_next_job()


@app.task(name=RUN_EVALUATION, ignore_result=True)
def run_evaluation_task(evaluation_id: str) -> None:
    """Run what comes next: this evaluation, or what has waited longer."""
    run_next_job()


@app.task(name=MEASURE, ignore_result=True)
def measure_task(_: str) -> None:
    """Run what comes next; where nothing waits, measure how fast this worker trains, for plans."""
    if not run_next_job():
        measure_next()


@worker_ready.connect
def _start_dispatcher(sender: Any, **_: Any) -> None:
    _dispatcher.start()
    _presence.start(sender.controller.concurrency)


@task_prerun.connect
def _run_task(**_: Any) -> None:
    shutdown.leave_signals_to_the_worker()


@worker_shutting_down.connect
def _stop(**_: Any) -> None:
    shutdown.ask()
    _dispatcher.stop()
    _presence.stop()
