"""A project's keys: list, make, change, rotate and revoke them, as far as the caller's own key may.

No key hands out a scope that it lacks, and none hands out ``operator``.
"""

from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from manyicl_core.errors import Conflict, Forbidden, NotFound
from manyicl_core.store.pages import Page, fetch_created
from manyicl_core.store.projects.projects import find_project
from manyicl_core.store.projects.schemas import OPERATOR, ChangeKey, IssuedKey, in_order
from manyicl_core.store.projects.service import Caller, issue_key
from manyicl_core.store.tables import ApiKey, Project

_ADMIN = "admin"


def create_key(session: Session, caller: Caller, project_id: str, name: str, scopes: Iterable[str]) -> IssuedKey:
    """A new key of a project.

    Raises:
        ProjectNotFound: there is none.
        Conflict: it is archived.
        Forbidden: a scope is not the caller's to give.
    """
    project = find_project(session, caller, project_id)
    if project.archived_at is not None:
        raise Conflict(f"The project {project.name!r} is archived; its keys open nothing", "project_id")
    _check_may_give(caller, scopes)
    return issue_key(session, project.id, name, scopes)


def find_key(session: Session, caller: Caller, project_id: str, key_id: str) -> ApiKey:
    """One key of a project, also a revoked one.

    Raises:
        ProjectNotFound: there is no such project.
        NotFound: it has no such key.
    """
    find_project(session, caller, project_id)
    key = session.scalar(select(ApiKey).where(ApiKey.id == key_id, ApiKey.project_id == project_id))
    if key is None:
        raise NotFound("API key", key_id)
    return key


def list_keys(session: Session, caller: Caller, project_id: str, after: str | None, limit: int) -> Page[ApiKey]:
    """A page of the keys that hold, newest first."""
    find_project(session, caller, project_id)
    query = select(ApiKey).where(ApiKey.project_id == project_id, _holds())
    return fetch_created(session, query, ApiKey.project_id, project_id, after, limit, "API key")


def change_key(session: Session, caller: Caller, project_id: str, key_id: str, change: ChangeKey) -> ApiKey:
    """Give a key another name or other scopes.

    Raises:
        NotFound: there is none.
        Conflict: it is revoked, or the project's last one with the scope ``admin``.
        Forbidden: a scope is not the caller's to give or to take.
    """
    key = _own_to_change(session, caller, project_id, key_id)
    if change.scopes is not None:
        _check_may_give(caller, (scope for scope in change.scopes if scope not in key.scopes))
        if _ADMIN not in change.scopes:
            _check_admin_remains(session, caller, key)
        key.scopes = in_order(change.scopes)
    if change.name is not None:
        key.name = change.name
    session.flush()
    return key


def rotate_key(session: Session, caller: Caller, project_id: str, key_id: str, grace_seconds: int) -> IssuedKey:
    """A new key of the same name and scopes; the old one holds for ``grace_seconds`` more.

    Raises:
        NotFound: there is none.
        Conflict: it is revoked, or was rotated before.
        Forbidden: the caller lacks one of its scopes.
    """
    key = _own_to_change(session, caller, project_id, key_id)
    if key.revoked_at is not None:
        raise Conflict(f"The key {key_id!r} was rotated before; rotate the key that took its place")
    lacking = in_order(set(key.scopes) - caller.scopes)
    if lacking:
        raise _not_yours(lacking[0])
    key.revoked_at = session.scalar(select(func.now() + timedelta(seconds=grace_seconds)))
    return issue_key(session, project_id, key.name, key.scopes)


def revoke_key(session: Session, caller: Caller, project_id: str, key_id: str) -> None:
    """End a key, at once and for ever.

    Raises:
        NotFound: there is none.
        Conflict: it is revoked already, or the project's last one with the scope ``admin``.
        Forbidden: it is an operator's, and the caller is none.
    """
    key = _own_to_change(session, caller, project_id, key_id)
    _check_admin_remains(session, caller, key)
    key.revoked_at = session.scalar(select(func.now()))
    session.flush()


def _own_to_change(session: Session, caller: Caller, project_id: str, key_id: str) -> ApiKey:
    """A key that holds, while no other request changes keys of its project."""
    find_project(session, caller, project_id)
    session.execute(select(Project.id).where(Project.id == project_id).with_for_update())
    key = find_key(session, caller, project_id, key_id)
    if not session.scalar(select(_holds()).where(ApiKey.id == key_id)):
        raise Conflict(f"The key {key_id!r} is revoked; make a new one")
    if OPERATOR in key.scopes and OPERATOR not in caller.scopes:
        raise Forbidden("This key is an operator's; only an operator's key may change it", code="insufficient_scope")
    return key


def _check_may_give(caller: Caller, scopes: Iterable[str]) -> None:
    missing = in_order(set(scopes) - (caller.scopes - {OPERATOR}))
    if missing:
        raise _not_yours(missing[0])


def _not_yours(scope: str) -> Forbidden:
    remedy = "only `manyicl keys bootstrap` does" if scope == OPERATOR else "use a key that has it"
    return Forbidden(f"This key cannot hand out the scope {scope!r}; {remedy}", "scopes", "insufficient_scope")


def _check_admin_remains(session: Session, caller: Caller, key: ApiKey) -> None:
    """A project does not lock itself out; an operator may lock it."""
    if _ADMIN not in key.scopes or OPERATOR in caller.scopes:
        return
    others = select(ApiKey.id).where(
        ApiKey.project_id == key.project_id,
        ApiKey.id != key.id,
        ApiKey.revoked_at.is_(None),
        ApiKey.scopes.contains([_ADMIN]),
    )
    if session.scalar(others.limit(1)) is None:
        raise Conflict(
            "This is the project's last key with the scope 'admin'; make another one first, or rotate it",
            code="last_admin_key",
        )


def _holds() -> ColumnElement[bool]:
    return or_(ApiKey.revoked_at.is_(None), ApiKey.revoked_at > func.now())
