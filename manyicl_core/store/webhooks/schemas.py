"""Webhook endpoints as the ``openai`` client makes and shows them, and the log of deliveries."""

from datetime import datetime
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, Field

from manyicl_core.request_body import RequestBody
from manyicl_core.store.tables import WebhookDelivery, WebhookEndpoint
from manyicl_core.store.webhooks.signing import signing_secret

EventType = Literal[
    "fine_tuning.job.succeeded",
    "fine_tuning.job.failed",
    "fine_tuning.job.cancelled",
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
]
EVENT_TYPES: tuple[str, ...] = get_args(EventType)

FIRST_SECRET = 1
"""The version of an endpoint's secret until it is rotated."""

_Name = Annotated[str, Field(min_length=1, max_length=256)]
_Url = Annotated[str, Field(min_length=1, max_length=2048)]
_EventTypes = Annotated[list[EventType], Field(min_length=1, max_length=100)]


class CreateWebhookEndpoint(RequestBody):
    """The body of ``POST /v1/webhook_endpoints``."""

    name: _Name
    url: _Url
    event_types: _EventTypes


class UpdateWebhookEndpoint(RequestBody):
    """The body of ``POST /v1/webhook_endpoints/{id}``; what is left out stays."""

    name: _Name | None = None
    url: _Url | None = None
    event_types: _EventTypes | None = None


class RotateSecret(RequestBody):
    """The body of ``POST /v1/webhook_endpoints/{id}/rotate_secret``."""

    keep_old_secret_active_for_24_hours: bool = False


class SampleEvent(RequestBody):
    """The body of ``POST /v1/webhook_endpoints/{id}/test``."""

    event_type: EventType


class WebhookEndpointObject(BaseModel):
    """OpenAI's ``WebhookEndpoint``."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str


class WebhookEndpointWithSecret(WebhookEndpointObject):
    """An endpoint when it is created or its secret rotated, the only times that the secret is told."""

    signing_secret: str


class WebhookEndpointDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True


class WebhookTestResult(BaseModel):
    """OpenAI's ``WebhookEndpointTestResult``: the endpoint has answered, with ``status_code``."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: Literal[True] = True


class WebhookEventTypes(BaseModel):
    """The types of events that there are."""

    object: Literal["list"] = "list"
    data: list[str]


class DeliveryObject(BaseModel):
    """One event on its way: ``pending`` until an attempt is answered with a 2xx, ``failed`` when given up."""

    id: str
    object: Literal["webhook_endpoint.delivery"] = "webhook_endpoint.delivery"
    created_at: int
    event_id: str
    event_type: str
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    next_attempt_at: int | None
    delivered_at: int | None
    response_status: int | None
    error: str | None


def endpoint_object(row: WebhookEndpoint) -> WebhookEndpointObject:
    """A row as the API shows it."""
    return WebhookEndpointObject(
        id=row.id,
        created_at=int(row.created_at.timestamp()),
        updated_at=int(row.updated_at.timestamp()),
        name=row.name,
        url=row.url,
        event_types=row.event_types,
        signing_secret_hint="whsec_…" + signing_secret(row.id, row.secret_version)[-4:],
    )


def with_secret(endpoint: WebhookEndpointObject, version: int) -> WebhookEndpointWithSecret:
    """An endpoint with its secret."""
    return WebhookEndpointWithSecret(**endpoint.model_dump(), signing_secret=signing_secret(endpoint.id, version))


def delivery_object(row: WebhookDelivery) -> DeliveryObject:
    """A row as the API shows it."""
    over: Literal["delivered", "failed"] = "failed" if row.delivered_at is None else "delivered"
    return DeliveryObject(
        id=row.id,
        created_at=int(row.created_at.timestamp()),
        event_id=row.event_id,
        event_type=row.event_type,
        status="pending" if row.next_attempt_at is not None else over,
        attempts=row.attempts,
        next_attempt_at=_seconds(row.next_attempt_at),
        delivered_at=_seconds(row.delivered_at),
        response_status=row.response_status,
        error=row.error,
    )


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
