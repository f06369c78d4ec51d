"""Tasks as models: each task of a fine-tuned model has an id of its own, which a client may name as ``model``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from manyicl_core.errors import NotFound
from manyicl_core.method.tasks import Task, TaskDefinition
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.models.schemas import ManyiclModel, ModelObject
from manyicl_core.store.models.service import find_model, model_object
from manyicl_core.store.models.task_ids import task_model_id
from manyicl_core.store.tables import Model
from manyicl_core.store.tasks.datasets import load_dataset


@dataclass(frozen=True, slots=True)
class TaskModel:
    """A task and the model that it is a task of, in the project that made both."""

    id: str
    model: Model
    definition: TaskDefinition


def kept_definitions(tasks: Sequence[Task], task: str | None) -> list[dict[str, object]]:
    """What a model's row says of its tasks; a dedicated job's model has the one ``task``."""
    return [each.definition.model_dump() for each in tasks if task in (None, each.definition.name)]


def task_models(store: ArtifactStore, model: Model) -> list[TaskModel]:
    """All of a model's tasks, held-out ones too, in the order of its job."""
    return [TaskModel(task_model_id(model.id, task.name), model, task) for task in _definitions(store, model)]


def _definitions(store: ArtifactStore, model: Model) -> Iterator[TaskDefinition]:
    kept = model.tasks
    if kept is None:  # made before rows said it
        try:
            kept = kept_definitions(load_dataset(store, model.dataset), model.task)
        except NotFound:
            return
    for definition in kept:
        yield TaskDefinition.model_validate(definition)


def find_task_model(session: Session, store: ArtifactStore, project_id: str, id_: str) -> TaskModel | None:
    """The task of a model of the project that an id names; None: it names none.

    What another project shares is its model and not its tasks.
    """
    model = find_model(session, project_id, id_.rpartition(":")[0])
    if model is None:
        return None
    return next((task for task in task_models(store, model) if task.id == id_), None)


def list_task_models(session: Session, store: ArtifactStore, project_id: str) -> list[ModelObject]:
    """The tasks of the project's models, newest model first."""
    query = select(Model).where(Model.project_id == project_id).order_by(Model.created_at.desc(), Model.id)
    return [task_model_object(task) for model in session.scalars(query) for task in task_models(store, model)]


def task_model_object(task: TaskModel) -> ModelObject:
    """A task as the API shows it among the models; ``parent`` is the model that answers."""
    definition = task.definition
    manyicl = ManyiclModel(
        instruction=definition.instruction, labels=definition.labels, metric=definition.metric, role=definition.role
    )
    of_model = model_object(task.model, task.model.project_id)
    return of_model.model_copy(
        update={"id": task.id, "parent": task.model.id, "task": definition.name, "manyicl": manyicl}
    )
