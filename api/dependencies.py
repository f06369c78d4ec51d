"""What routes need: who asks, and where artifacts lie."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.event_feed import EventFeed
from manyicl_core.engines.client import EngineClient
from manyicl_core.errors import Unauthorized
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.projects.service import authenticate
from manyicl_core.store.session import transaction

_bearer = HTTPBearer(auto_error=False, description="A project's API key")


@dataclass(frozen=True, slots=True)
class Caller:
    """The project that a request's key belongs to."""

    project_id: str


def _caller(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Caller:
    if credentials is None:
        raise Unauthorized
    with transaction() as session:
        return Caller(authenticate(session, credentials.credentials).id)


def _artifacts(request: Request) -> ArtifactStore:
    store = request.app.state.artifacts
    assert isinstance(store, ArtifactStore)
    return store


def _engine(request: Request) -> EngineClient:
    client = request.app.state.engine
    assert isinstance(client, EngineClient)
    return client


def _job_feed(request: Request) -> EventFeed:
    feed = request.app.state.job_feed
    assert isinstance(feed, EventFeed)
    return feed


def _evaluation_feed(request: Request) -> EventFeed:
    feed = request.app.state.evaluation_feed
    assert isinstance(feed, EventFeed)
    return feed


ReaderDep = Annotated[Caller, Depends(_caller)]
WriterDep = Annotated[Caller, Depends(_caller)]
InferenceDep = Annotated[Caller, Depends(_caller)]
ArtifactsDep = Annotated[ArtifactStore, Depends(_artifacts)]
JobFeedDep = Annotated[EventFeed, Depends(_job_feed)]
EvaluationFeedDep = Annotated[EventFeed, Depends(_evaluation_feed)]
EngineDep = Annotated[EngineClient, Depends(_engine)]
