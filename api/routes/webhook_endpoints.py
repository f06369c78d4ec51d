"""Webhook endpoints: create, list, retrieve, update, delete, rotate the secret, test, and the log of deliveries."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from api.creation import AnsweredBefore, OnceDep
from api.dependencies import ReaderDep, WriterDep
from api.routes.lists import ListObject, list_object
from manyicl_core.errors import InvalidRequest
from manyicl_core.settings import get_settings
from manyicl_core.store.session import transaction
from manyicl_core.store.webhooks import service
from manyicl_core.store.webhooks.outbox import Attempt
from manyicl_core.store.webhooks.schemas import (
    EVENT_TYPES,
    FIRST_SECRET,
    CreateWebhookEndpoint,
    DeliveryObject,
    RotateSecret,
    SampleEvent,
    UpdateWebhookEndpoint,
    WebhookEndpointDeleted,
    WebhookEndpointObject,
    WebhookEndpointWithSecret,
    WebhookEventTypes,
    WebhookTestResult,
    delivery_object,
    endpoint_object,
    with_secret,
)
from manyicl_core.webhook_post import post

router = APIRouter(tags=["webhooks"])

_Limit = Annotated[int, Query(ge=1, le=100)]


@router.get("/webhook_event_types")
def list_webhook_event_types(caller: ReaderDep) -> WebhookEventTypes:
    """The types of events that an endpoint can be sent."""
    return WebhookEventTypes(data=list(EVENT_TYPES))


@router.post("/webhook_endpoints")
def create_webhook_endpoint(caller: WriterDep, once: OnceDep, body: CreateWebhookEndpoint) -> WebhookEndpointWithSecret:
    """Send events to a URL from now on; the secret that signs them is told this once."""

    def create(session: Session) -> WebhookEndpointObject:
        return endpoint_object(service.create_endpoint(session, caller.project_id, body))

    try:
        endpoint = once.create(body, create)
    except AnsweredBefore as before:
        # The kept answer lacks the secret, which no table holds.
        endpoint = WebhookEndpointObject.model_validate_json(before.answer)
    return with_secret(endpoint, FIRST_SECRET)


@router.get("/webhook_endpoints")
def list_webhook_endpoints(
    caller: ReaderDep, after: str | None = None, limit: _Limit = 20
) -> ListObject[WebhookEndpointObject]:
    """The project's endpoints, newest first."""
    with transaction() as session:
        page = service.list_endpoints(session, caller.project_id, after, limit)
    return list_object([endpoint_object(row) for row in page.rows], page.has_more)


@router.get("/webhook_endpoints/{endpoint_id}")
def retrieve_webhook_endpoint(caller: ReaderDep, endpoint_id: str) -> WebhookEndpointObject:
    """One endpoint, without its secret."""
    with transaction() as session:
        return endpoint_object(service.get_endpoint(session, caller.project_id, endpoint_id))


@router.post("/webhook_endpoints/{endpoint_id}")
def update_webhook_endpoint(caller: WriterDep, endpoint_id: str, body: UpdateWebhookEndpoint) -> WebhookEndpointObject:
    """Change an endpoint's name, URL or event types."""
    with transaction() as session:
        return endpoint_object(service.update_endpoint(session, caller.project_id, endpoint_id, body))


@router.delete("/webhook_endpoints/{endpoint_id}")
def delete_webhook_endpoint(caller: WriterDep, endpoint_id: str) -> WebhookEndpointDeleted:
    """Send nothing there any more, and forget what was sent."""
    with transaction() as session:
        service.delete_endpoint(session, caller.project_id, endpoint_id)
    return WebhookEndpointDeleted(id=endpoint_id)


@router.post("/webhook_endpoints/{endpoint_id}/rotate_secret")
def rotate_webhook_secret(
    caller: WriterDep, endpoint_id: str, body: RotateSecret | None = None
) -> WebhookEndpointWithSecret:
    """Sign with a new secret, which is told this once."""
    keep_old = body is not None and body.keep_old_secret_active_for_24_hours
    with transaction() as session:
        endpoint = service.rotate_secret(session, caller.project_id, endpoint_id, keep_old)
    return with_secret(endpoint_object(endpoint), endpoint.secret_version)


@router.post("/webhook_endpoints/{endpoint_id}/test")
async def test_webhook_endpoint(caller: WriterDep, endpoint_id: str, body: SampleEvent) -> WebhookTestResult:
    """Send a sample of an event now, once, and tell what the endpoint answered."""

    def sample() -> Attempt:
        with transaction() as session:
            return service.sample_attempt(session, caller.project_id, endpoint_id, body.event_type)

    attempt = await run_in_threadpool(sample)
    answer = await post(attempt.url, attempt.headers, attempt.body, get_settings().webhook_private_addresses)
    if answer.status is None:
        raise InvalidRequest(f"The endpoint was not reached: {answer.error}")
    return WebhookTestResult(webhook_endpoint_id=endpoint_id, event_type=body.event_type, status_code=answer.status)


@router.get("/webhook_endpoints/{endpoint_id}/deliveries")
def list_webhook_deliveries(
    caller: ReaderDep, endpoint_id: str, after: str | None = None, limit: _Limit = 20
) -> ListObject[DeliveryObject]:
    """What was or is to be sent there, newest first; kept for 30 days."""
    with transaction() as session:
        page = service.list_deliveries(session, caller.project_id, endpoint_id, after, limit)
    return list_object([delivery_object(row) for row in page.rows], page.has_more)
