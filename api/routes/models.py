"""Models: list, retrieve, delete; tasks of models, and contexts that answer, are models too."""

from fastapi import APIRouter, BackgroundTasks
from starlette.convertors import PathConvertor, register_url_convertor

from api.dependencies import ArtifactsDep, EngineDep, ReaderDep, WriterDep
from api.routes.lists import ListObject, list_object
from manyicl_core.store.contexts.as_models import get_context_model, list_context_models
from manyicl_core.store.contexts.hosting import CONTEXT_PREFIX, expire_context, expired_contexts, remove_contexts
from manyicl_core.store.models import service
from manyicl_core.store.models.schemas import ModelDeleted, ModelObject
from manyicl_core.store.models.weights import delete_unreferenced
from manyicl_core.store.session import transaction
from manyicl_core.store.tasks.datasets import delete_unreferenced_dataset
from manyicl_core.store.tasks.task_models import find_task_model, list_task_models, task_model_object

router = APIRouter(prefix="/models", tags=["models"])


class _ModelId(PathConvertor):
    """An id may hold ``/``; what lies under a model's artifacts is none, whatever the method."""

    regex = "(?!.*/artifacts(?:/|$)).+"


register_url_convertor("model_id", _ModelId())


@router.get("")
def list_models(caller: ReaderDep, artifacts: ArtifactsDep) -> ListObject[ModelObject]:
    """All that the project may name: the base model, its fine-tuned ones, their tasks, its contexts that answer."""
    with transaction() as session:
        models = service.list_models(session, caller.project_id)
        tasks = list_task_models(session, artifacts, caller.project_id)
        return list_object([*models, *tasks, *list_context_models(session, caller.project_id)])


@router.get("/{model:model_id}")
def retrieve_model(caller: ReaderDep, artifacts: ArtifactsDep, model: str) -> ModelObject:
    """One model."""
    with transaction() as session:
        if model.startswith(CONTEXT_PREFIX):
            return get_context_model(session, caller.project_id, model)
        if task := find_task_model(session, artifacts, caller.project_id, model):
            return task_model_object(task)
        return service.get_model(session, caller.project_id, model)


@router.delete("/{model:model_id}")
def delete_model(
    caller: WriterDep, artifacts: ArtifactsDep, engine: EngineDep, background: BackgroundTasks, model: str
) -> ModelDeleted:
    """Delete a context, or a fine-tuned model with its checkpoints; weights and data go unless something uses them."""
    if model.startswith(CONTEXT_PREFIX):
        with transaction() as session:
            expire_context(session, caller.project_id, model)
        background.add_task(remove_contexts, artifacts, expired_contexts(), engine.forget)
        return ModelDeleted(id=model)
    with transaction() as session:
        hashes, dataset = service.delete_model(session, caller.project_id, model)
    delete_unreferenced_dataset(artifacts, dataset)
    background.add_task(engine.remove, delete_unreferenced(artifacts, hashes))
    return ModelDeleted(id=model)
