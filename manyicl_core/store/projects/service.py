"""Make projects and keys, and find out what a key may do."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from manyicl_core.errors import Unauthorized
from manyicl_core.ids import new_id
from manyicl_core.settings import get_settings, required
from manyicl_core.store.projects.schemas import DEFAULT_SCOPES, IssuedKey, in_order
from manyicl_core.store.tables import ApiKey, Project

_PREFIX = "sk-manyicl-"
_SHOWN_CHARACTERS = 4


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a key, the project that it belongs to, and what it may do."""

    project_id: str
    key_id: str
    scopes: frozenset[str]


def find_project(session: Session, name: str) -> Project | None:
    """The project of that name, if there is one."""
    return session.scalar(select(Project).where(Project.name == name))


def get_or_create_project(session: Session, name: str) -> Project:
    """The project of that name."""
    project = find_project(session, name)
    if project is None:
        project = Project(id=new_id("proj_"), name=name)
        session.add(project)
        session.flush()
    return project


def create_key(session: Session, project: Project, scopes: Iterable[str] = DEFAULT_SCOPES) -> str:
    """The secret of a new key of ``project``."""
    return issue_key(session, project.id, "default", scopes).secret


def issue_key(session: Session, project_id: str, name: str, scopes: Iterable[str]) -> IssuedKey:
    """A new key: 256 random bits, returned once and stored as a hash only."""
    secret = _PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        id=new_id("key_"),
        project_id=project_id,
        name=name,
        hash=_hash(secret),
        redacted=f"{_PREFIX}…{secret[-_SHOWN_CHARACTERS:]}",
        scopes=in_order(scopes),
    )
    session.add(key)
    session.flush()
    return IssuedKey(key, secret)


def authenticate(session: Session, secret: str) -> Caller:
    """Who holds this key.

    Raises:
        Unauthorized: there is no such key, it is revoked, or its project is archived.
    """
    found = session.execute(
        select(ApiKey.project_id, ApiKey.id, ApiKey.scopes)
        .join(Project, Project.id == ApiKey.project_id)
        .where(
            ApiKey.hash == _hash(secret),
            or_(ApiKey.revoked_at.is_(None), ApiKey.revoked_at > func.now()),
            Project.archived_at.is_(None),
        )
    ).one_or_none()
    if found is None:
        raise Unauthorized
    return Caller(found.project_id, found.id, frozenset(found.scopes))


def _hash(secret: str) -> str:
    """HMAC-SHA256 under the installation's secret: a stolen table alone verifies no guess."""
    key = required(get_settings(), "secret_key")
    return hmac.new(key.encode(), secret.encode(), hashlib.sha256).hexdigest()
