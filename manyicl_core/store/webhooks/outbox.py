"""Events on their way to webhook endpoints: written with what they tell of, sent until somebody has them.

A delivery that is due is claimed by moving its next attempt past the longest that an attempt can
take. A sender that dies leaves it due again, so an event arrives at least once; its id is the same
every time.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from manyicl_core.ids import new_id
from manyicl_core.store.tables import WebhookDelivery, WebhookEndpoint
from manyicl_core.store.webhooks.signing import signed_headers, signing_secret

CLAIMED_FOR = timedelta(seconds=60)
"""Longer than any attempt takes (``manyicl_core.webhook_post``)."""

BACK_OFF = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 300, 1800, 7200, 18_000, 36_000, 50_400))
"""Pauses before the second and each later attempt: 32 hours in all, then the event is given up."""

_KEPT = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is to be sent now."""

    delivery_id: str
    endpoint_id: str
    url: str
    headers: dict[str, str]
    body: str


def announce(session: Session, project_id: str, event_type: str, subject_id: str) -> None:
    """Queue an event for each endpoint that wants it, in the transaction that makes it true.

    Args:
        event_type: such as ``fine_tuning.job.succeeded``.
        subject_id: of the job or batch that it is about.
    """
    endpoints = session.scalars(
        select(WebhookEndpoint.id).where(
            WebhookEndpoint.project_id == project_id, WebhookEndpoint.event_types.contains([event_type])
        )
    ).all()
    if not endpoints:
        return
    event_id = new_id("evt_")
    now = session.execute(select(func.now())).scalar_one()
    body = event_body(event_id, now, event_type, subject_id)
    session.execute(
        delete(WebhookDelivery).where(
            WebhookDelivery.endpoint_id.in_(endpoints),
            WebhookDelivery.created_at < now - _KEPT,
            WebhookDelivery.next_attempt_at.is_(None),
        )
    )
    for endpoint_id in endpoints:
        delivery = {"endpoint_id": endpoint_id, "event_id": event_id, "event_type": event_type, "body": body}
        session.add(WebhookDelivery(id=new_id("whd_"), **delivery))
    session.flush()


def event_body(event_id: str, now: datetime, event_type: str, subject_id: str) -> str:
    """An event as OpenAI writes it."""
    event = {
        "id": event_id,
        "object": "event",
        "created_at": int(now.timestamp()),
        "type": event_type,
        "data": {"id": subject_id},
    }
    return json.dumps(event)


def claim_due(session: Session, under_way: Iterable[str], limit: int) -> list[Attempt]:
    """Take what is due, the oldest of each endpoint, so that one with a long queue keeps nobody waiting.

    Args:
        under_way: the ids of endpoints that are left out.
        limit: so many at most, those first that are due longest.
    """
    due = WebhookDelivery.next_attempt_at <= func.now()
    of_each = (
        select(WebhookDelivery.id, WebhookDelivery.next_attempt_at)
        .where(due, WebhookDelivery.endpoint_id.not_in(list(under_way)))
        .ext(distinct_on(WebhookDelivery.endpoint_id))
        .order_by(WebhookDelivery.endpoint_id, WebhookDelivery.next_attempt_at, WebhookDelivery.created_at)
        .subquery()
    )
    oldest = select(of_each.c.id).order_by(of_each.c.next_attempt_at).limit(limit)
    claimed = session.scalars(
        update(WebhookDelivery)
        # Again whether it is due: another sender may have taken it since.
        .where(WebhookDelivery.id.in_(oldest), due)
        .values(next_attempt_at=func.now() + CLAIMED_FOR, attempts=WebhookDelivery.attempts + 1)
        .returning(WebhookDelivery)
    ).all()
    now = session.execute(select(func.now())).scalar_one()
    endpoints = {
        endpoint.id: endpoint
        for endpoint in session.scalars(
            select(WebhookEndpoint).where(WebhookEndpoint.id.in_([row.endpoint_id for row in claimed]))
        )
    }
    return [signed_attempt(endpoints[row.endpoint_id], row.id, row.event_id, row.body, now) for row in claimed]


def signed_attempt(endpoint: WebhookEndpoint, delivery_id: str, event_id: str, body: str, now: datetime) -> Attempt:
    """What is sent to the endpoint, signed for this moment."""
    versions = [endpoint.secret_version]
    if endpoint.old_secret_until is not None and endpoint.old_secret_until > now:
        versions.append(endpoint.secret_version - 1)
    secrets = [signing_secret(endpoint.id, version) for version in versions]
    return Attempt(
        delivery_id, endpoint.id, endpoint.url, signed_headers(event_id, int(now.timestamp()), body, secrets), body
    )


def record_attempt(session: Session, delivery_id: str, status: int | None, error: str | None) -> None:
    """How an attempt went: done, or to be tried again later, or given up.

    Args:
        status: of the answer, or None when there was none.
        error: why it does not count as delivered, or None when it does.
    """
    row = session.get(WebhookDelivery, delivery_id, with_for_update=True)
    if row is None:
        return  # the endpoint was deleted meanwhile
    now = session.execute(select(func.now())).scalar_one()
    row.response_status = status
    row.error = error
    if error is None:
        row.delivered_at, row.next_attempt_at = now, None
    elif row.attempts <= len(BACK_OFF):
        row.next_attempt_at = now + BACK_OFF[row.attempts - 1]
    else:
        row.next_attempt_at = None
