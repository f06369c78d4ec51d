"""Webhook endpoints of a project, and the log of what was sent there."""

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from manyicl_core.errors import InvalidRequest, NotFound
from manyicl_core.ids import new_id
from manyicl_core.settings import get_settings
from manyicl_core.store.creations import forget_made
from manyicl_core.store.pages import Page, delete_listed, fetch_created
from manyicl_core.store.quotas.service import lock_project
from manyicl_core.store.tables import WebhookDelivery, WebhookEndpoint
from manyicl_core.store.webhooks.outbox import Attempt, event_body, signed_attempt
from manyicl_core.store.webhooks.schemas import FIRST_SECRET, CreateWebhookEndpoint, UpdateWebhookEndpoint
from manyicl_core.webhook_post import check_url

MAX_ENDPOINTS = 20
_OLD_SECRET = timedelta(hours=24)


def create_endpoint(session: Session, project_id: str, request: CreateWebhookEndpoint) -> WebhookEndpoint:
    """Send events there from now on.

    Raises:
        InvalidRequest: the URL cannot be sent to, or the project has too many endpoints.
    """
    _check_url(request.url)
    lock_project(session, project_id)
    count = select(func.count()).select_from(WebhookEndpoint).where(WebhookEndpoint.project_id == project_id)
    if session.execute(count).scalar_one() >= MAX_ENDPOINTS:
        raise InvalidRequest(f"The project has {MAX_ENDPOINTS} webhook endpoints already; delete one")
    endpoint = WebhookEndpoint(
        id=new_id("we_"),
        project_id=project_id,
        name=request.name,
        url=request.url,
        event_types=list(dict.fromkeys(request.event_types)),
        secret_version=FIRST_SECRET,
    )
    session.add(endpoint)
    session.flush()
    session.refresh(endpoint)
    return endpoint


def get_endpoint(session: Session, project_id: str, endpoint_id: str) -> WebhookEndpoint:
    """One endpoint of the project.

    Raises:
        NotFound: the project has no such endpoint.
    """
    query = select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.project_id == project_id)
    endpoint = session.scalar(query)
    if endpoint is None:
        raise NotFound("webhook endpoint", endpoint_id)
    return endpoint


def list_endpoints(session: Session, project_id: str, after: str | None, limit: int) -> Page[WebhookEndpoint]:
    """A page of endpoints, newest first."""
    query = select(WebhookEndpoint).where(WebhookEndpoint.project_id == project_id)
    return fetch_created(session, query, WebhookEndpoint.project_id, project_id, after, limit, "webhook endpoint")


def update_endpoint(
    session: Session, project_id: str, endpoint_id: str, request: UpdateWebhookEndpoint
) -> WebhookEndpoint:
    """Change what the request names; what is on its way goes to the new URL.

    Raises:
        NotFound: the project has no such endpoint.
        InvalidRequest: the URL cannot be sent to.
    """
    endpoint = get_endpoint(session, project_id, endpoint_id)
    if request.url is not None:
        _check_url(request.url)
        endpoint.url = request.url
    if request.name is not None:
        endpoint.name = request.name
    if request.event_types is not None:
        endpoint.event_types = list(dict.fromkeys(request.event_types))
    if session.is_modified(endpoint):
        endpoint.updated_at = session.execute(select(func.now())).scalar_one()
    session.flush()
    return endpoint


def delete_endpoint(session: Session, project_id: str, endpoint_id: str) -> None:
    """Send nothing there any more; its log goes too.

    Raises:
        NotFound: the project has no such endpoint.
    """
    delete_listed(session, get_endpoint(session, project_id, endpoint_id), project_id)
    forget_made(session, endpoint_id)


def rotate_secret(session: Session, project_id: str, endpoint_id: str, keep_old: bool) -> WebhookEndpoint:
    """Sign with a new secret from now on, and for a day with the old one too when that is asked for.

    Raises:
        NotFound: the project has no such endpoint.
    """
    endpoint = get_endpoint(session, project_id, endpoint_id)
    now = session.execute(select(func.now())).scalar_one()
    endpoint.secret_version += 1
    endpoint.old_secret_until = now + _OLD_SECRET if keep_old else None
    endpoint.updated_at = now
    session.flush()
    return endpoint


def sample_attempt(session: Session, project_id: str, endpoint_id: str, event_type: str) -> Attempt:
    """A signed sample of an event, to try an endpoint with; it is about nothing that exists.

    Raises:
        NotFound: the project has no such endpoint.
    """
    endpoint = get_endpoint(session, project_id, endpoint_id)
    event_id = new_id("evt_")
    now = session.execute(select(func.now())).scalar_one()
    return signed_attempt(endpoint, event_id, event_id, event_body(event_id, now, event_type, "sample"), now)


def list_deliveries(
    session: Session, project_id: str, endpoint_id: str, after: str | None, limit: int
) -> Page[WebhookDelivery]:
    """A page of an endpoint's log, newest first.

    Raises:
        NotFound: the project has no such endpoint, or ``after`` is not in its log.
    """
    endpoint = get_endpoint(session, project_id, endpoint_id)
    query = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint.id)
    return fetch_created(session, query, WebhookDelivery.endpoint_id, endpoint.id, after, limit, "delivery")


def _check_url(url: str) -> None:
    if problem := check_url(url, get_settings().webhook_private_addresses):
        raise InvalidRequest(f"url: {problem}", "url")
