"""The audit log, where ``client.admin.organization.audit_logs`` looks for it."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import AdminDep
from api.routes.lists import ListObject, list_object
from manyicl_core.store.projects import audit
from manyicl_core.store.projects.audit import AuditLogObject
from manyicl_core.store.session import transaction

router = APIRouter(prefix="/organization/audit_logs", tags=["projects"])


@router.get("")
def list_audit_logs(
    caller: AdminDep, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> ListObject[AuditLogObject]:
    """Every write to the key's project, or to any for an operator, newest first."""
    with transaction() as session:
        page = audit.list_writes(session, caller, after, limit)
    return list_object([audit.audit_log_object(row) for row in page.rows], page.has_more)
