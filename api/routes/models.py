"""Models: list, retrieve, delete. Ids hold ``/`` and ``:``, hence the path parameters."""

from fastapi import APIRouter, BackgroundTasks

from api.dependencies import ArtifactsDep, EngineDep, ReaderDep, WriterDep
from api.routes.lists import ListObject, list_object
from manyicl_core.store.models import service
from manyicl_core.store.models.schemas import ModelDeleted, ModelObject
from manyicl_core.store.models.weights import delete_unreferenced
from manyicl_core.store.session import transaction

router = APIRouter(prefix="/models", tags=["models"])


@router.get("")
def list_models(caller: ReaderDep) -> ListObject[ModelObject]:
    """The base model and the project's fine-tuned ones."""
    with transaction() as session:
        return list_object(service.list_models(session, caller.project_id))


@router.get("/{model:path}")
def retrieve_model(caller: ReaderDep, model: str) -> ModelObject:
    """One model."""
    with transaction() as session:
        return service.get_model(session, caller.project_id, model)


@router.delete("/{model:path}")
def delete_model(
    caller: WriterDep, artifacts: ArtifactsDep, engine: EngineDep, background: BackgroundTasks, model: str
) -> ModelDeleted:
    """Delete a fine-tuned model and its checkpoints, and their weights unless something else uses them."""
    with transaction() as session:
        hashes = service.delete_model(session, caller.project_id, model)
    background.add_task(engine.remove, delete_unreferenced(artifacts, hashes))
    return ModelDeleted(id=model)
