"""What routes need: who asks, and where artifacts lie."""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from api.audit import remember_writer
from api.event_feed import EventFeed
from manyicl_core.engines.client import EngineClient
from manyicl_core.errors import InsufficientScope
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.projects.service import Caller

_bearer = HTTPBearer(auto_error=False, description="A project's API key")


async def _caller(
    request: Request,
    demanded: SecurityScopes,
    # For the OpenAPI document; the key was looked at before the body was read.
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    caller = request.state.caller
    assert isinstance(caller, Caller)
    for scope in demanded.scopes:
        if scope not in caller.scopes:
            raise InsufficientScope(scope)
    remember_writer(request, caller, demanded.scopes)
    return caller


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


# Every route demands one of these, and so does its entry in the OpenAPI document.
ReaderDep = Annotated[Caller, Security(_caller, scopes=["read"])]
WriterDep = Annotated[Caller, Security(_caller, scopes=["write"])]
InferenceDep = Annotated[Caller, Security(_caller, scopes=["inference"])]
AdminDep = Annotated[Caller, Security(_caller, scopes=["admin"])]
OperatorDep = Annotated[Caller, Security(_caller, scopes=["operator"])]
ArtifactsDep = Annotated[ArtifactStore, Depends(_artifacts)]
JobFeedDep = Annotated[EventFeed, Depends(_job_feed)]
EvaluationFeedDep = Annotated[EventFeed, Depends(_evaluation_feed)]
EngineDep = Annotated[EngineClient, Depends(_engine)]
