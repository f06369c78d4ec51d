"""Contexts that answer, as models: what a client may name stands in one list."""

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from manyicl_core.errors import NotFound
from manyicl_core.store.contexts.hosting import is_alive
from manyicl_core.store.models.schemas import ModelObject
from manyicl_core.store.tables import Context


def list_context_models(session: Session, project_id: str) -> list[ModelObject]:
    """The project's contexts that answer, newest first."""
    rows = session.scalars(_answering(project_id).order_by(Context.created_at.desc(), Context.id))
    return [_model_object(row) for row in rows]


def get_context_model(session: Session, project_id: str, context_id: str) -> ModelObject:
    """One context that answers.

    Raises:
        NotFound: the project has no such context, or it does not answer.
    """
    context = session.scalar(_answering(project_id).where(Context.id == context_id))
    if context is None:
        raise NotFound("model", context_id, "model")
    return _model_object(context)


def _answering(project_id: str) -> Select[Context]:
    return select(Context).where(
        Context.project_id == project_id, is_alive(), Context.artifact.is_not(None), Context.error_code.is_(None)
    )


def _model_object(context: Context) -> ModelObject:
    return ModelObject(
        id=context.id,
        created=int(context.created_at.timestamp()),
        owned_by=context.project_id,
        root=context.base_model,
        parent=context.model,
        task=context.task,
        weights_sha256=context.weights_sha256,
    )
