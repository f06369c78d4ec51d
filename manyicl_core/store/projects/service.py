"""Make projects and keys, and find the project of a key."""

import hashlib
import hmac
import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from manyicl_core.errors import Unauthorized
from manyicl_core.ids import new_id
from manyicl_core.settings import get_settings, required
from manyicl_core.store.tables import ApiKey, Project

_PREFIX = "sk-manyicl-"


def get_or_create_project(session: Session, name: str) -> Project:
    """The project of that name."""
    project = session.scalar(select(Project).where(Project.name == name))
    if project is None:
        project = Project(id=new_id("proj_"), name=name)
        session.add(project)
        session.flush()
    return project


def create_key(session: Session, project: Project) -> str:
    """A new key of ``project``: 256 random bits, returned once and never stored."""
    secret = _PREFIX + secrets.token_urlsafe(32)
    session.add(ApiKey(id=new_id("key_"), project_id=project.id, hash=_hash(secret)))
    session.flush()
    return secret


def authenticate(session: Session, secret: str) -> Project:
    """The project that a key belongs to.

    Raises:
        Unauthorized: there is no such key, or it is revoked.
    """
    project = session.scalar(
        select(Project)
        .join(ApiKey, ApiKey.project_id == Project.id)
        .where(ApiKey.hash == _hash(secret), ApiKey.revoked_at.is_(None))
    )
    if project is None:
        raise Unauthorized
    return project


def _hash(secret: str) -> str:
    """HMAC-SHA256 under the installation's secret: a stolen table alone verifies no guess."""
    key = required(get_settings(), "secret_key")
    return hmac.new(key.encode(), secret.encode(), hashlib.sha256).hexdigest()
