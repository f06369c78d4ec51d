"""Let other projects call a model: give, list and take back permissions."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from manyicl_core.errors import InvalidRequest, NotFound
from manyicl_core.ids import new_id
from manyicl_core.store.models.service import own_model
from manyicl_core.store.pages import Page, delete_listed, fetch_created
from manyicl_core.store.tables import ModelPermission, Project


def share_model(session: Session, project_id: str, model_id: str, project_ids: Sequence[str]) -> list[ModelPermission]:
    """Let projects call a model of this one; what one may already stays as it is.

    Raises:
        NotFound: the project has no such model, or there is no such other project.
        InvalidRequest: a project is the model's own.
    """
    model = own_model(session, project_id, model_id)
    for index, other in enumerate(project_ids):
        param = f"project_ids.{index}"
        if other == project_id:
            raise InvalidRequest(f"{param}: the model is this project's own already; leave it out", param)
        if session.get(Project, other) is None:
            raise InvalidRequest(f"{param}: there is no project {other!r}; ask its members for its id", param)
        permission = insert(ModelPermission).values(id=new_id("cp_"), model_id=model.id, project_id=other)
        session.execute(permission.on_conflict_do_nothing())
    query = select(ModelPermission).where(
        ModelPermission.model_id == model.id, ModelPermission.project_id.in_(project_ids)
    )
    found = {permission.project_id: permission for permission in session.scalars(query)}
    return [found[other] for other in dict.fromkeys(project_ids)]


def list_permissions(
    session: Session,
    project_id: str,
    model_id: str,
    other: str | None,
    after: str | None,
    limit: int,
    ascending: bool,
) -> Page[ModelPermission]:
    """A page of a model's permissions; ``other`` keeps that project's only.

    Raises:
        NotFound: the project has no such model, or ``after`` is not a permission of it.
    """
    model = own_model(session, project_id, model_id)
    query = select(ModelPermission).where(ModelPermission.model_id == model.id)
    if other is not None:
        query = query.where(ModelPermission.project_id == other)
    return fetch_created(session, query, ModelPermission.model_id, model.id, after, limit, "permission", ascending)


def delete_permission(session: Session, project_id: str, model_id: str, permission_id: str) -> None:
    """Take a permission back; from now on the other project finds no such model.

    Raises:
        NotFound: the project has no such model, or the model no such permission.
    """
    model = own_model(session, project_id, model_id)
    permission = session.scalar(
        select(ModelPermission).where(ModelPermission.id == permission_id, ModelPermission.model_id == model.id)
    )
    if permission is None:
        raise NotFound("permission", permission_id)
    delete_listed(session, permission, model.id)
