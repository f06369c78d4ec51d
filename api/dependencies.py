"""What routes need: who asks, and where artifacts lie."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

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


ReaderDep = Annotated[Caller, Depends(_caller)]
WriterDep = Annotated[Caller, Depends(_caller)]
InferenceDep = Annotated[Caller, Depends(_caller)]
ArtifactsDep = Annotated[ArtifactStore, Depends(_artifacts)]
EngineDep = Annotated[EngineClient, Depends(_engine)]
