"""Permissions of models: let other projects call one. Model ids hold ``/`` and ``:``, hence the path parameters."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from api.dependencies import ReaderDep, WriterDep
from api.routes.lists import ListObject, list_object
from manyicl_core.store.models import permissions
from manyicl_core.store.models.schemas import CreatePermissions, PermissionDeleted, PermissionObject, permission_object
from manyicl_core.store.session import transaction

router = APIRouter(prefix="/fine_tuning/checkpoints", tags=["fine-tuning"])


@router.post("/{model:path}/permissions")
def create_permissions(caller: WriterDep, model: str, body: CreatePermissions) -> ListObject[PermissionObject]:
    """Let other projects, named by their ids, call a model of this one."""
    with transaction() as session:
        rows = permissions.share_model(session, caller.project_id, model, body.project_ids)
    return list_object([permission_object(row) for row in rows])


@router.get("/{model:path}/permissions")
def list_permissions(
    caller: ReaderDep,
    model: str,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    order: Literal["ascending", "descending"] = "descending",
    project_id: str | None = None,
) -> ListObject[PermissionObject]:
    """Which other projects may call the model."""
    with transaction() as session:
        page = permissions.list_permissions(
            session, caller.project_id, model, project_id, after, limit, order == "ascending"
        )
    return list_object([permission_object(row) for row in page.rows], page.has_more)


@router.delete("/{model:path}/permissions/{permission_id}")
def delete_permission(caller: WriterDep, model: str, permission_id: str) -> PermissionDeleted:
    """Take a permission back: the other project no longer finds the model."""
    with transaction() as session:
        permissions.delete_permission(session, caller.project_id, model, permission_id)
    return PermissionDeleted(id=permission_id)
