"""Find the models that a project may name."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, or_, select
from sqlalchemy.orm import Session

from manyicl_core.base_models.catalog import BaseModelEntry, context_length, find_base_model, known_base_models
from manyicl_core.errors import Conflict, InvalidRequest, NotFound, UserError
from manyicl_core.method.encoding import ENCODER_VERSION, template_hash
from manyicl_core.store.models.schemas import ModelObject
from manyicl_core.store.models.task_ids import task_model_id
from manyicl_core.store.tables import Checkpoint, Model, ModelPermission


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model to answer with; a base model has neither weights of its own nor a dataset.

    ``trained_tokens`` is the length of the sequences it was trained on: contexts fill it by default.
    A ``shared`` one belongs to another project, which lets this one call it; it shows no dataset.
    """

    base: BaseModelEntry
    adaptation: str | None
    weights_sha256: str | None
    dataset: str | None
    trained_tokens: int
    shared: bool = False


def base_model_object(entry: BaseModelEntry) -> ModelObject:
    """A base model as the API shows it."""
    return ModelObject(id=entry.id, created=entry.created, owned_by=entry.owner)


def model_object(model: Model, project_id: str) -> ModelObject:
    """A fine-tuned model as the API shows it to a project."""
    own = model.project_id == project_id
    return ModelObject(
        id=model.id,
        created=int(model.created_at.timestamp()),
        owned_by=model.project_id,
        root=model.base_model,
        job=model.job_id if own else None,
        adaptation=model.adaptation,
        task=model.task,
        weights_sha256=model.weights_sha256 if own else None,
    )


def list_models(session: Session, project_id: str) -> list[ModelObject]:
    """Base models first, then those that the project made or may call, newest first."""
    models = session.scalars(select(Model).where(callable_by(project_id)).order_by(Model.created_at.desc(), Model.id))
    return [
        *map(base_model_object, known_base_models()),
        *(model_object(model, project_id) for model in models),
    ]


def get_model(session: Session, project_id: str, model_id: str) -> ModelObject:
    """One model that the project may name.

    Raises:
        NotFound: there is none.
    """
    if entry := find_base_model(model_id):
        return base_model_object(entry)
    return model_object(_callable_model(session, project_id, model_id), project_id)


def served_model(session: Session, project_id: str, model_id: str) -> ServedModel:
    """What answers for a model id.

    Raises:
        NotFound: there is none.
        InvalidRequest: it is a task of a model.
        Conflict: it was trained with another encoder.
    """
    if entry := find_base_model(model_id):
        return ServedModel(entry, None, None, None, context_length(entry))
    model = _callable_model(session, project_id, model_id)
    base = find_base_model(model.base_model)
    if base is None:
        raise NotFound("model", model.base_model, "model")
    if (model.encoder_version, model.template_hash) != (ENCODER_VERSION, template_hash()):
        raise Conflict(
            f"{model_id} was trained with encoder {model.encoder_version}, and this installation has "
            f"{ENCODER_VERSION}; answers would be wrong. Train it again",
            "model",
        )
    if model.project_id != project_id:
        # The weights answer, and nothing else: the tasks that they were trained on are the owner's data.
        return ServedModel(base, model.adaptation, model.weights_sha256, None, model.trained_tokens, shared=True)
    return ServedModel(base, model.adaptation, model.weights_sha256, model.dataset, model.trained_tokens)


def delete_model(session: Session, project_id: str, model_id: str) -> tuple[set[str], str]:
    """Forget a fine-tuned model, and its checkpoints with it; gives the hashes of their weights and of their dataset.

    Raises:
        NotFound: there is none.
        InvalidRequest: it is a base model, or a task of a model.
    """
    if find_base_model(model_id):
        raise InvalidRequest(f"{model_id!r} is a base model; only fine-tuned models can be deleted", "model")
    model = own_model(session, project_id, model_id)
    hashes: set[str] = set()
    for table in (Model, Checkpoint):
        query = delete(table).where(table.job_id == model.job_id, table.task.is_not_distinct_from(model.task))
        if model.step is not None:
            query = query.where(table.step == model.step)
        hashes |= set(session.scalars(query.returning(table.weights_sha256)))
    return hashes, model.dataset


def own_model(session: Session, project_id: str, model_id: str) -> Model:
    """A fine-tuned model that the project made.

    Raises:
        NotFound: there is none.
        InvalidRequest: it is a task of a model.
    """
    model = find_model(session, project_id, model_id)
    if model is None:
        raise _no_model(session, project_id, model_id)
    return model


def find_model(session: Session, project_id: str, model_id: str) -> Model | None:
    """A fine-tuned model that the project made; None: there is none."""
    return session.scalar(select(Model).where(Model.id == model_id, Model.project_id == project_id))


def _callable_model(session: Session, project_id: str, model_id: str) -> Model:
    model = session.scalar(select(Model).where(Model.id == model_id, callable_by(project_id)))
    if model is None:
        raise _no_model(session, project_id, model_id)
    return model


def _no_model(session: Session, project_id: str, model_id: str) -> UserError:
    """Why an id is none of a model; who names a task where only its model will do is told the model's."""
    whole = find_model(session, project_id, model_id.rpartition(":")[0])
    tasks = [] if whole is None else whole.tasks or []
    if whole is not None and any(task_model_id(whole.id, task["name"]) == model_id for task in tasks):
        return InvalidRequest(
            f"{model_id!r} is a task, which chat completions, completions, classifications and batches take as a "
            f"model; here name the model {whole.id!r}, and the task where there is a field for it",
            "model",
        )
    return NotFound("model", model_id, "model")


def callable_by(project_id: str) -> ColumnElement[bool]:
    """Whether a project made a model, or was given permission to call it, in a query."""
    permitted = select(ModelPermission.model_id).where(ModelPermission.project_id == project_id)
    return or_(Model.project_id == project_id, Model.id.in_(permitted))
