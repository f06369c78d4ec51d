"""The Celery worker of the hosting queue: its tasks, and the dispatcher's thread beside it.

What it does is drawing and encoding and waiting for the engine, several at a time, so threads are
enough, and nothing of it ever waits behind a training job:

``celery -A worker.hosting_app worker --pool=threads --queues=manyicl.hosting --hostname=hosting@%h``
"""

import asyncio
from typing import Any

from celery.signals import worker_ready, worker_shutting_down

from manyicl_core.engines.client import open_engines
from manyicl_core.logging import configure_logging
from manyicl_core.objects import open_store
from manyicl_core.settings import get_settings, required
from manyicl_core.store.contexts.hosting import expired_contexts, remove_contexts
from manyicl_core.store.creations import delete_old_creations
from manyicl_core.store.files.service import remove_expired_files
from manyicl_core.store.hints import BUILD_CONTEXT, HOSTING_QUEUE, RUN_BATCH, get_celery
from manyicl_core.store.pages import forget_deleted
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Context
from manyicl_core.store.uploads.parts import remove_parts
from worker import shutdown
from worker.dispatcher import HOSTING_WORK, Dispatcher, send_missing_hints
from worker.next_work import run_next_hosting
from worker.presence import Presence
from worker.webhooks import deliver_due

app = get_celery()
_store = open_store(required(get_settings(), "storage_url"))
configure_logging("hosting", get_settings().log_json)


@app.task(name=BUILD_CONTEXT, ignore_result=True)
def build_context_task(context_id: str) -> None:
    """Do what comes next: this context, or what has waited longer."""
    run_next_hosting()


@app.task(name=RUN_BATCH, ignore_result=True)
def run_batch_task(batch_id: str) -> None:
    """Do what comes next: this batch, or what has waited longer."""
    run_next_hosting()


def _look() -> None:
    send_missing_hints(HOSTING_QUEUE, HOSTING_WORK)
    with transaction() as session:
        delete_old_creations(session)
        forget_deleted(session)
    remove_expired_files(_store)
    remove_parts(_store)
    if expired := expired_contexts():
        asyncio.run(_remove(expired))


async def _remove(contexts: list[Context]) -> None:
    engines = open_engines(get_settings(), _store)
    try:
        await remove_contexts(_store, contexts, engines.forget)
    finally:
        await engines.close()


_dispatcher = Dispatcher(get_settings(), _look)
# In a thread of its own: receivers are slow, and nothing here waits for them.
_webhooks = Dispatcher(get_settings(), deliver_due)
_presence = Presence(HOSTING_QUEUE, get_settings().dispatch_seconds)


@worker_ready.connect
def _start_dispatcher(sender: Any, **_: Any) -> None:
    _dispatcher.start()
    _presence.start(sender.controller.concurrency)
    _webhooks.start()


@worker_shutting_down.connect
def _stop(**_: Any) -> None:
    shutdown.ask()
    _dispatcher.stop()
    _presence.stop()
    _webhooks.stop()
