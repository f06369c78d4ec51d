"""A project's quotas."""

from fastapi import APIRouter

from api.dependencies import ReaderDep
from manyicl_core.store.quotas.schemas import QuotasObject, quotas_object
from manyicl_core.store.session import transaction

router = APIRouter(prefix="/quotas", tags=["usage"])


@router.get("")
def retrieve_quotas(caller: ReaderDep) -> QuotasObject:
    """What the project may keep, queue, train and ask, and how much of it is used."""
    with transaction() as session:
        return quotas_object(session, caller.project_id)
