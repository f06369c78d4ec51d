"""The audit log: one row a write request that succeeded."""

from typing import Literal

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from manyicl_core.errors import NotFound
from manyicl_core.ids import new_id
from manyicl_core.store.pages import Page, fetch_page
from manyicl_core.store.projects.schemas import OPERATOR
from manyicl_core.store.projects.service import Caller
from manyicl_core.store.tables import AuditLog

_PROJECTS = "/v1/organization/projects"
_KEYS = _PROJECTS + "/{project_id}/api_keys"
_PERMISSIONS = "/v1/fine_tuning/checkpoints/{model:path}/permissions"
_TYPES = {
    f"POST {_PROJECTS}": "project.created",
    f"POST {_PROJECTS}/{{project_id}}": "project.updated",
    f"POST {_PROJECTS}/{{project_id}}/archive": "project.archived",
    f"POST {_KEYS}": "api_key.created",
    f"POST {_KEYS}/{{api_key_id}}": "api_key.updated",
    f"POST {_KEYS}/{{api_key_id}}/rotate": "api_key.created",
    f"DELETE {_KEYS}/{{api_key_id}}": "api_key.deleted",
    f"POST {_PERMISSIONS}": "checkpoint.permission.created",
    f"DELETE {_PERMISSIONS}/{{permission_id}}": "checkpoint.permission.deleted",
}
"""OpenAI's word for a request, where it has one: it records no writes to files, jobs and the like."""


class AuditedKey(BaseModel):
    """The key of a request."""

    id: str
    type: Literal["service_account"] = "service_account"


class AuditedActor(BaseModel):
    """Who sent a request."""

    type: Literal["api_key"] = "api_key"
    api_key: AuditedKey


class AuditedProject(BaseModel):
    """The project that a request wrote to."""

    id: str


class AuditLogObject(BaseModel):
    """OpenAI's audit log; ``type`` is its word, or the ``request`` where it has none; what follows that is ours."""

    id: str
    object: Literal["organization.audit_log"] = "organization.audit_log"
    type: str
    effective_at: int
    actor: AuditedActor
    project: AuditedProject
    request: str
    resource_id: str | None
    request_id: str
    status: int


def record_write(
    session: Session,
    caller: Caller,
    project_id: str,
    method: str,
    route: str,
    resource_id: str | None,
    request_id: str,
    status: int,
) -> None:
    """Add the row of a write that has succeeded."""
    session.add(
        AuditLog(
            id=new_id("audit_"),
            project_id=project_id,
            key_id=caller.key_id,
            method=method,
            route=route,
            resource_id=resource_id,
            request_id=request_id,
            status=status,
        )
    )
    session.flush()


def list_writes(session: Session, caller: Caller, after: str | None, limit: int) -> Page[AuditLog]:
    """A page of the writes to the caller's project, or to any for an operator, newest first.

    Raises:
        NotFound: ``after`` is none of them.
    """
    query = select(AuditLog)
    if OPERATOR not in caller.scopes:
        query = query.where(AuditLog.project_id == caller.project_id)
    cursor = None
    if after is not None:
        last = session.scalar(query.where(AuditLog.id == after))
        if last is None:
            raise NotFound("audit log", after, "after")
        cursor = (last.number,)
    return fetch_page(session, query, (AuditLog.number,), cursor, limit)


def audit_log_object(row: AuditLog) -> AuditLogObject:
    """A row as the API shows it."""
    request = f"{row.method} {row.route}"
    return AuditLogObject(
        id=row.id,
        type=_TYPES.get(request, request),
        request=request,
        effective_at=int(row.created_at.timestamp()),
        actor=AuditedActor(api_key=AuditedKey(id=row.key_id)),
        project=AuditedProject(id=row.project_id),
        resource_id=row.resource_id,
        request_id=row.request_id,
        status=row.status,
    )
