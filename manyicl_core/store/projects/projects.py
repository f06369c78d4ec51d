"""Make, find, rename and archive projects, as far as a key may."""

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from manyicl_core.errors import Conflict, InvalidRequest, ProjectNotFound
from manyicl_core.ids import new_id
from manyicl_core.store.pages import Page, fetch_page
from manyicl_core.store.projects.schemas import OPERATOR
from manyicl_core.store.projects.service import Caller
from manyicl_core.store.tables import Project


def create_project(session: Session, name: str) -> Project:
    """A new project, without keys.

    Raises:
        Conflict: another project has that name.
    """
    project = Project(id=new_id("proj_"), name=name)
    _save(session, project)
    return project


def find_project(session: Session, caller: Caller, project_id: str, param: str | None = None) -> Project:
    """A project that the caller may manage: its own, or any as an operator.

    Raises:
        ProjectNotFound: there is none, or it is not the caller's.
    """
    mine = project_id == caller.project_id or OPERATOR in caller.scopes
    project = session.get(Project, project_id) if mine else None
    if project is None:
        raise ProjectNotFound(project_id, param)
    return project


def list_projects(
    session: Session, caller: Caller, include_archived: bool, after: str | None, limit: int
) -> Page[Project]:
    """A page of the projects that the caller may manage, newest first."""
    query = select(Project)
    if OPERATOR not in caller.scopes:
        query = query.where(Project.id == caller.project_id)
    if not include_archived:
        query = query.where(Project.archived_at.is_(None))
    cursor = None
    if after is not None:
        last = find_project(session, caller, after, "after")
        cursor = (last.created_at, last.id)
    return fetch_page(session, query, (Project.created_at, Project.id), cursor, limit)


def rename_project(session: Session, caller: Caller, project_id: str, name: str) -> Project:
    """Give a project another name; the ids of its models keep the old one.

    Raises:
        ProjectNotFound: there is none.
        Conflict: another project has that name.
    """
    project = find_project(session, caller, project_id)
    project.name = name
    _save(session, project)
    return project


def archive_project(session: Session, caller: Caller, project_id: str) -> Project:
    """Close a project: its keys open nothing any more. What it has queued goes on, and nothing is deleted.

    Raises:
        ProjectNotFound: there is none.
        InvalidRequest: it is the caller's own.
    """
    project = find_project(session, caller, project_id)
    if project.id == caller.project_id:
        raise InvalidRequest(
            "This key belongs to the project, and would open nothing afterwards; use an operator's key of another one",
            "project_id",
        )
    if project.archived_at is None:
        project.archived_at = session.scalar(select(func.now()))
        session.flush()
    return project


def _save(session: Session, project: Project) -> None:
    name = project.name
    try:
        session.add(project)
        session.flush()
    except IntegrityError:
        raise Conflict(f"name: there is a project {name!r} already; choose another name", "name") from None
