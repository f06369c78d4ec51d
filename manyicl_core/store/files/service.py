"""Keep, find and delete a project's files."""

import unicodedata
from datetime import timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from manyicl_core.errors import InvalidRequest, NotFound
from manyicl_core.ids import new_id
from manyicl_core.jsonl import chunks_of
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.creations import forget_made
from manyicl_core.store.files.content import Measured, StoredContent, content_key
from manyicl_core.store.files.schemas import MAX_NAME_CHARACTERS, RESULTS_PURPOSE
from manyicl_core.store.pages import Page, delete_listed, fetch_created
from manyicl_core.store.quotas.service import admit_bytes
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import File

_REMOVED_AT_ONCE = 100


def checked_name(name: str, param: str = "file") -> str:
    """A file's name that any system shows as it is.

    Raises:
        InvalidRequest: it is empty or too long, or holds control characters.
    """
    controls = any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS or controls:
        raise InvalidRequest(
            f"{param}: a file's name has 1 to {MAX_NAME_CHARACTERS} characters and no control characters; rename it",
            param,
        )
    return name


def create_file(
    session: Session,
    project_id: str,
    content: StoredContent,
    filename: str,
    purpose: str,
    seconds: int | None = None,
) -> File:
    """Keep a file whose content is stored; with ``seconds``, so long.

    The content is stored before the row exists, so no row ever points at nothing.

    Raises:
        QuotaExceeded: the project may not keep so much.
    """
    admit_bytes(session, project_id, content.bytes)
    file = File(
        id=content.file_id,
        project_id=project_id,
        filename=filename,
        purpose=purpose,
        bytes=content.bytes,
        sha256=content.sha256,
        expires_at=None if seconds is None else func.now() + timedelta(seconds=seconds),
    )
    session.add(file)
    session.flush()
    return file


def stored_file(store: ArtifactStore, project_id: str, path: Path, filename: str, purpose: str) -> File:
    """Store the content at ``path``; the row is the caller's to add.

    Raises:
        StorageFull: there is no room.
    """
    file_id = new_id("file-")
    with path.open("rb") as content:
        measured = Measured(chunks_of(content))
        store.put_stream(content_key(file_id), measured)
    return File(
        id=file_id,
        project_id=project_id,
        filename=filename,
        purpose=purpose,
        bytes=measured.bytes,
        sha256=measured.sha256.hexdigest(),
    )


def create_result_file(session: Session, store: ArtifactStore, project_id: str, path: Path, filename: str) -> File:
    """Keep a file that a job made; it counts for the quota of stored bytes, and is never refused."""
    file = stored_file(store, project_id, path, filename, RESULTS_PURPOSE)
    session.add(file)
    session.flush()
    return file


def get_file(session: Session, project_id: str, file_id: str, param: str | None = None) -> File:
    """One file of the project.

    Raises:
        NotFound: the project has no such file, or it has expired.
    """
    file = session.scalar(select(File).where(File.id == file_id, File.project_id == project_id, _is_alive()))
    if file is None:
        raise NotFound("file", file_id, param)
    return file


def list_files(
    session: Session, project_id: str, purpose: str | None, after: str | None, limit: int, ascending: bool
) -> Page[File]:
    """A page of the project's files, by creation."""
    query = select(File).where(File.project_id == project_id, _is_alive())
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    return fetch_created(session, query, File.project_id, project_id, after, limit, "file", ascending)


def delete_file(session: Session, store: ArtifactStore, project_id: str, file_id: str) -> None:
    """Forget a file; jobs and batches made from it keep their own copy.

    Raises:
        NotFound: the project has no such file.
    """
    delete_listed(session, get_file(session, project_id, file_id), project_id)
    forget_made(session, file_id)
    store.delete(content_key(file_id))


def remove_expired_files(store: ArtifactStore) -> int:
    """Take away files that have expired, content and rows, some at a time; say how many."""
    with transaction() as session:
        expired = session.scalars(
            select(File).where(~_is_alive()).limit(_REMOVED_AT_ONCE).with_for_update(skip_locked=True)
        ).all()
        for file in expired:
            store.delete(content_key(file.id))
            delete_listed(session, file, file.project_id)
    return len(expired)


def _is_alive() -> ColumnElement[bool]:
    return or_(File.expires_at.is_(None), File.expires_at > func.now())
