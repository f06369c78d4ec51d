"""Projects' quotas."""

from fastapi import APIRouter

from api.dependencies import AdminDep, OperatorDep, ReaderDep
from manyicl_core.store.projects.projects import find_project
from manyicl_core.store.quotas.schemas import QuotasObject, SetQuotas, quotas_object
from manyicl_core.store.quotas.service import set_quota
from manyicl_core.store.session import transaction

router = APIRouter(tags=["usage"])


@router.get("/quotas")
def retrieve_quotas(caller: ReaderDep) -> QuotasObject:
    """What the project may keep, queue, train and ask, and how much of it is used."""
    with transaction() as session:
        return quotas_object(session, caller.project_id)


@router.get("/organization/projects/{project_id}/quotas")
def retrieve_project_quotas(caller: AdminDep, project_id: str) -> QuotasObject:
    """The same of one project."""
    with transaction() as session:
        return quotas_object(session, find_project(session, caller, project_id).id)


@router.post("/organization/projects/{project_id}/quotas")
def set_quotas(caller: OperatorDep, project_id: str, body: SetQuotas) -> QuotasObject:
    """Give a project quotas of its own; null is the installation's, and what is left out stays."""
    with transaction() as session:
        project = find_project(session, caller, project_id)
        for name, limit in body.changes().items():
            set_quota(session, project.id, name, limit)
        return quotas_object(session, project.id)
