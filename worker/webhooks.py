"""Send the events that are due."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import structlog

from manyicl_core.settings import get_settings
from manyicl_core.store.session import transaction
from manyicl_core.store.webhooks.outbox import Attempt, claim_due, record_attempt
from manyicl_core.webhook_post import post

_AT_ONCE = 200

_log = structlog.get_logger(__name__)


def deliver_due() -> None:
    """Send until nothing is due; one event an endpoint at a time, and no endpoint waits for another."""
    asyncio.run(_deliver_due())


async def _deliver_due() -> None:
    # A name is resolved in a thread: as many as may hang, so that they hold up no other.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_AT_ONCE))
    under_way: dict[asyncio.Task[None], str] = {}
    while True:
        with transaction() as session:
            attempts = claim_due(session, under_way.values(), _AT_ONCE - len(under_way))
        for attempt in attempts:
            under_way[asyncio.create_task(_deliver(attempt))] = attempt.endpoint_id
        if not under_way:
            return
        # What becomes due meanwhile does not wait for receivers that take their time.
        pause = get_settings().dispatch_seconds
        done, _ = await asyncio.wait(under_way, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            del under_way[task]
            task.result()


async def _deliver(attempt: Attempt) -> None:
    answer = await post(attempt.url, attempt.headers, attempt.body, get_settings().webhook_private_addresses)
    with transaction() as session:
        record_attempt(session, attempt.delivery_id, answer.status, answer.error)
    _log.info("webhook", delivery=attempt.delivery_id, status=answer.status, error=answer.error)
