"""What keys may do, and projects and keys as the API takes and shows them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from manyicl_core.request_body import RequestBody
from manyicl_core.store.tables import ApiKey, Project

Scope = Literal["read", "write", "inference", "admin", "operator"]
"""``read`` sees what a project has, ``write`` makes, changes and deletes it, ``inference`` has models answer,
``admin`` manages the project's keys and reads its audit log, ``operator`` makes projects and manages all of them.

None implies another: a key may do exactly what its scopes say.
"""

SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_SCOPES: tuple[Scope, ...] = ("read", "write", "inference")
OPERATOR: Scope = "operator"


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key with its secret, which nothing can tell a second time."""

    key: ApiKey
    secret: str


def in_order(scopes: Iterable[str]) -> list[str]:
    """The scopes, each once, in the order in which they are documented."""
    given = set(scopes)
    return [scope for scope in SCOPES if scope in given]


_SECONDS_A_WEEK = 7 * 24 * 3600
_MAX_NAME_CHARACTERS = 64

_KeyName = Annotated[str, StringConstraints(min_length=1, max_length=_MAX_NAME_CHARACTERS)]
_Scopes = Annotated[list[Scope], Field(min_length=1, max_length=len(SCOPES))]


def _project_name(name: str) -> str:
    if not re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{_MAX_NAME_CHARACTERS - 1}}}", name):
        raise ValueError(
            f"a project's name is a part of its models' ids: at most {_MAX_NAME_CHARACTERS} letters, digits, "
            "'.', '_' and '-', and the first one a letter or digit"
        )
    return name


_ProjectName = Annotated[str, AfterValidator(_project_name)]


class NamedProject(RequestBody):
    """The body that makes a project."""

    name: _ProjectName


class ChangeProject(RequestBody):
    """The body that changes a project; without a name it stays as it is."""

    name: _ProjectName | None = None


class CreateKey(RequestBody):
    """The body that makes a key."""

    name: _KeyName
    scopes: _Scopes = Field(default=list(DEFAULT_SCOPES))


class ChangeKey(RequestBody):
    """The body that changes a key; what is left out stays."""

    name: _KeyName | None = None
    scopes: _Scopes | None = None


class RotateKey(RequestBody):
    """The body that rotates a key; the old secret holds for ``grace_seconds`` more."""

    grace_seconds: int = Field(default=0, ge=0, le=_SECONDS_A_WEEK)


class ProjectObject(BaseModel):
    """OpenAI's ``Project``."""

    id: str
    object: Literal["organization.project"] = "organization.project"
    name: str
    created_at: int
    archived_at: int | None
    status: Literal["active", "archived"]


class Owner(BaseModel):
    """Keys belong to projects, not to people."""

    type: Literal["service_account"] = "service_account"


class KeyObject(BaseModel):
    """OpenAI's ``ProjectAPIKey``, with its ``scopes``."""

    id: str
    object: Literal["organization.project.api_key"] = "organization.project.api_key"
    name: str
    redacted_value: str
    scopes: list[str]
    created_at: int
    expires_at: int | None
    owner: Owner = Owner()
    owner_project_access: Literal["active"] = "active"


class IssuedKeyObject(KeyObject):
    """A new key; its secret ``value`` is in this answer only."""

    value: str


class KeyRevoked(BaseModel):
    """The answer to a revocation."""

    id: str
    object: Literal["organization.project.api_key.deleted"] = "organization.project.api_key.deleted"
    deleted: Literal[True] = True


def project_object(project: Project) -> ProjectObject:
    """A row as the API shows it."""
    return ProjectObject(
        id=project.id,
        name=project.name,
        created_at=int(project.created_at.timestamp()),
        archived_at=_seconds(project.archived_at),
        status="active" if project.archived_at is None else "archived",
    )


def key_object(key: ApiKey) -> KeyObject:
    """A row as the API shows it; never its secret."""
    return KeyObject(
        id=key.id,
        name=key.name,
        redacted_value=key.redacted,
        scopes=key.scopes,
        created_at=int(key.created_at.timestamp()),
        expires_at=_seconds(key.revoked_at),
    )


def issued_key_object(issued: IssuedKey) -> IssuedKeyObject:
    """A new key with its secret."""
    return IssuedKeyObject(**key_object(issued.key).model_dump(), value=issued.secret)


def _seconds(time: datetime | None) -> int | None:
    return None if time is None else int(time.timestamp())
