"""Contexts that answer, as models: what a client may name stands in one list."""

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from manyicl_core.base_models.catalog import known_base_models
from manyicl_core.errors import NotFound
from manyicl_core.store.contexts.hosting import is_alive
from manyicl_core.store.models.schemas import ModelObject
from manyicl_core.store.models.service import callable_by
from manyicl_core.store.tables import Context, Model


def list_context_models(session: Session, project_id: str) -> list[ModelObject]:
    """The project's contexts that answer, newest first."""
    rows = session.execute(_answering(project_id).order_by(Context.created_at.desc(), Context.id))
    return [_model_object(context, owner_id) for context, owner_id in rows]


def get_context_model(session: Session, project_id: str, context_id: str) -> ModelObject:
    """One context that answers.

    Raises:
        NotFound: the project has no such context, or it does not answer.
    """
    row = session.execute(_answering(project_id).where(Context.id == context_id)).one_or_none()
    if row is None:
        raise NotFound("model", context_id, "model")
    return _model_object(*row)


def _answering(project_id: str) -> Select[Context, str | None]:
    """Each with the project that made its model, or None for a base model; that model must still be there to call."""
    base_models = [entry.id for entry in known_base_models()]
    return (
        select(Context, Model.project_id)
        .outerjoin(Model, Model.id == Context.model)
        .where(
            Context.project_id == project_id,
            is_alive(),
            Context.artifact.is_not(None),
            Context.error_code.is_(None),
            or_(Context.model.in_(base_models), callable_by(project_id)),
        )
    )


def _model_object(context: Context, owner_id: str | None) -> ModelObject:
    return ModelObject(
        id=context.id,
        created=int(context.created_at.timestamp()),
        owned_by=context.project_id,
        root=context.base_model,
        parent=context.model,
        task=context.task,
        # As of the model itself: another project's weights are not told.
        weights_sha256=context.weights_sha256 if owner_id == context.project_id else None,
    )
