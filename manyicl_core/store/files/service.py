"""Keep, find and delete a project's files."""

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from manyicl_core.errors import InvalidRequest, NotFound
from manyicl_core.ids import new_id
from manyicl_core.method.dataset import InvalidDataset, parse_rows
from manyicl_core.objects import ArtifactStore, sha256_of
from manyicl_core.store.files.schemas import RESULTS_PURPOSE
from manyicl_core.store.pages import Page, fetch_page
from manyicl_core.store.tables import File


def content_key(file_id: str) -> str:
    """Where a file's content lies."""
    return f"files/{file_id}"


def create_file(
    session: Session, store: ArtifactStore, project_id: str, path: Path, filename: str, purpose: str
) -> File:
    """Check and keep an upload that lies at ``path``.

    The content is stored before the row exists, so no row ever points at nothing.

    Raises:
        InvalidRequest: it is meant for fine-tuning and a line is wrong.
        StorageFull: there is no room.
    """
    if purpose == "fine-tune":
        try:
            with path.open("rb") as lines:
                parse_rows(lines)
        except InvalidDataset as error:
            raise InvalidRequest(f"{filename}: {error}", "file", "invalid_file") from error
    file = stored_file(store, project_id, path, filename, purpose)
    session.add(file)
    session.flush()
    return file


def stored_file(store: ArtifactStore, project_id: str, path: Path, filename: str, purpose: str) -> File:
    """Store the content at ``path``; the row is the caller's to add.

    Raises:
        StorageFull: there is no room.
    """
    file = File(
        id=new_id("file-"),
        project_id=project_id,
        filename=filename,
        purpose=purpose,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
    )
    store.put(content_key(file.id), path)
    return file


def create_result_file(session: Session, store: ArtifactStore, project_id: str, path: Path, filename: str) -> File:
    """Keep a file that a job made."""
    return create_file(session, store, project_id, path, filename, RESULTS_PURPOSE)


def get_file(session: Session, project_id: str, file_id: str, param: str | None = None) -> File:
    """One file of the project.

    Raises:
        NotFound: the project has no such file.
    """
    file = session.scalar(select(File).where(File.id == file_id, File.project_id == project_id))
    if file is None:
        raise NotFound("file", file_id, param)
    return file


def list_files(
    session: Session, project_id: str, purpose: str | None, after: str | None, limit: int, ascending: bool
) -> Page[File]:
    """A page of the project's files, by creation."""
    query = select(File).where(File.project_id == project_id)
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    cursor = None
    if after is not None:
        last = get_file(session, project_id, after, "after")
        cursor = (last.created_at, last.id)
    return fetch_page(session, query, (File.created_at, File.id), cursor, limit, ascending)


def delete_file(session: Session, store: ArtifactStore, project_id: str, file_id: str) -> None:
    """Forget a file; jobs and batches made from it keep their own copy.

    Raises:
        NotFound: the project has no such file.
    """
    session.delete(get_file(session, project_id, file_id))
    session.flush()
    store.delete(content_key(file_id))
