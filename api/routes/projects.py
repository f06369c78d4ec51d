"""Projects and their keys, where ``client.admin.organization.projects`` looks for them."""

from typing import Annotated

from fastapi import APIRouter, Body, Query

from api.dependencies import AdminDep, OperatorDep
from api.known_keys import KNOWN_KEYS
from api.routes.lists import ListObject, list_object
from manyicl_core.store.projects import keys, projects
from manyicl_core.store.projects.schemas import (
    ChangeKey,
    ChangeProject,
    CreateKey,
    IssuedKeyObject,
    KeyObject,
    KeyRevoked,
    NamedProject,
    ProjectObject,
    RotateKey,
    issued_key_object,
    key_object,
    project_object,
)
from manyicl_core.store.session import transaction

router = APIRouter(prefix="/organization/projects", tags=["projects"])

_Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("")
def create_project(_: OperatorDep, body: NamedProject) -> ProjectObject:
    """Make a project; its first key is the next thing to make."""
    with transaction() as session:
        return project_object(projects.create_project(session, body.name))


@router.get("")
def list_projects(
    caller: AdminDep, include_archived: bool = False, after: str | None = None, limit: _Limit = 20
) -> ListObject[ProjectObject]:
    """The key's project, or every project for an operator, newest first."""
    with transaction() as session:
        page = projects.list_projects(session, caller, include_archived, after, limit)
    return list_object([project_object(row) for row in page.rows], page.has_more)


@router.get("/{project_id}")
def retrieve_project(caller: AdminDep, project_id: str) -> ProjectObject:
    """One project."""
    with transaction() as session:
        return project_object(projects.find_project(session, caller, project_id))


@router.post("/{project_id}")
def rename_project(caller: OperatorDep, project_id: str, body: ChangeProject) -> ProjectObject:
    """Give a project another name."""
    with transaction() as session:
        if body.name is None:
            return project_object(projects.find_project(session, caller, project_id))
        return project_object(projects.rename_project(session, caller, project_id, body.name))


@router.post("/{project_id}/archive")
def archive_project(caller: OperatorDep, project_id: str) -> ProjectObject:
    """Close a project: its keys open nothing any more; nothing is deleted."""
    with transaction() as session:
        archived = project_object(projects.archive_project(session, caller, project_id))
    KNOWN_KEYS.forget()
    return archived


@router.post("/{project_id}/api_keys")
def create_key(caller: AdminDep, project_id: str, body: CreateKey) -> IssuedKeyObject:
    """Make a key; this answer is the only one that holds its secret."""
    with transaction() as session:
        return issued_key_object(keys.create_key(session, caller, project_id, body.name, body.scopes))


@router.get("/{project_id}/api_keys")
def list_keys(caller: AdminDep, project_id: str, after: str | None = None, limit: _Limit = 20) -> ListObject[KeyObject]:
    """The keys that hold, newest first, without their secrets."""
    with transaction() as session:
        page = keys.list_keys(session, caller, project_id, after, limit)
    return list_object([key_object(row) for row in page.rows], page.has_more)


@router.get("/{project_id}/api_keys/{api_key_id}")
def retrieve_key(caller: AdminDep, project_id: str, api_key_id: str) -> KeyObject:
    """One key, also a revoked one, without its secret."""
    with transaction() as session:
        return key_object(keys.find_key(session, caller, project_id, api_key_id))


@router.post("/{project_id}/api_keys/{api_key_id}")
def change_key(caller: AdminDep, project_id: str, api_key_id: str, body: ChangeKey) -> KeyObject:
    """Give a key another name or other scopes."""
    with transaction() as session:
        changed = key_object(keys.change_key(session, caller, project_id, api_key_id, body))
    KNOWN_KEYS.forget()
    return changed


@router.post("/{project_id}/api_keys/{api_key_id}/rotate")
def rotate_key(
    caller: AdminDep, project_id: str, api_key_id: str, body: Annotated[RotateKey | None, Body()] = None
) -> IssuedKeyObject:
    """Make a key in the place of another one, which ends, at once or after a grace."""
    grace_seconds = (body or RotateKey()).grace_seconds
    with transaction() as session:
        issued = issued_key_object(keys.rotate_key(session, caller, project_id, api_key_id, grace_seconds))
    KNOWN_KEYS.forget()
    return issued


@router.delete("/{project_id}/api_keys/{api_key_id}")
def revoke_key(caller: AdminDep, project_id: str, api_key_id: str) -> KeyRevoked:
    """End a key, at once and for ever."""
    with transaction() as session:
        keys.revoke_key(session, caller, project_id, api_key_id)
    KNOWN_KEYS.forget()
    return KeyRevoked(id=api_key_id)
