"""Send the events that are due."""

import asyncio
from collections.abc import Sequence

import structlog

from manyicl_core.settings import get_settings
from manyicl_core.store.session import transaction
from manyicl_core.store.webhooks.outbox import Attempt, claim_due, record_attempt
from manyicl_core.webhook_post import Answer, post

_log = structlog.get_logger(__name__)


def deliver_due() -> None:
    """Send until nothing is due; one event an endpoint at a time, all endpoints together."""
    while True:
        with transaction() as session:
            attempts = claim_due(session)
        if not attempts:
            return
        answers = asyncio.run(_post_all(attempts))
        with transaction() as session:
            for attempt, answer in zip(attempts, answers, strict=True):
                record_attempt(session, attempt.delivery_id, answer.status, answer.error)
        for attempt, answer in zip(attempts, answers, strict=True):
            _log.info("webhook", delivery=attempt.delivery_id, status=answer.status, error=answer.error)


async def _post_all(attempts: Sequence[Attempt]) -> list[Answer]:
    allowed = get_settings().webhook_private_addresses
    calls = (post(attempt.url, attempt.headers, attempt.body, allowed) for attempt in attempts)
    return list(await asyncio.gather(*calls))
