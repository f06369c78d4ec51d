"""Files: upload, list, retrieve, content, delete."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from api.creation import OnceDep
from api.dependencies import ArtifactsDep, ReaderDep, WriterDep
from api.routes.lists import ListObject, list_object
from manyicl_core.errors import InvalidRequest, TooLarge
from manyicl_core.objects import sha256_of
from manyicl_core.settings import get_settings
from manyicl_core.store.files import service
from manyicl_core.store.files.schemas import UPLOAD_PURPOSES, FileDeleted, FileObject, file_object
from manyicl_core.store.session import transaction

router = APIRouter(prefix="/files", tags=["files"])


@router.post("")
def create_file(
    caller: WriterDep,
    artifacts: ArtifactsDep,
    once: OnceDep,
    file: UploadFile,
    purpose: Annotated[str, Form()],
    expires_after: Annotated[str | None, Form(alias="expires_after[anchor]")] = None,
) -> FileObject:
    """Upload a file; one for fine-tuning is checked line by line."""
    if expires_after is not None:
        raise InvalidRequest("expires_after: files do not expire here; delete them when you are done", "expires_after")
    if purpose not in UPLOAD_PURPOSES:
        raise InvalidRequest(f"purpose: {purpose!r} is not one of {', '.join(UPLOAD_PURPOSES)}", "purpose")
    largest = get_settings().max_file_bytes
    if (file.size or 0) > largest:
        raise TooLarge(f"file: {file.size} bytes; a file may have {largest}", "file")
    filename = file.filename or "file"
    with tempfile.NamedTemporaryFile() as copy:
        shutil.copyfileobj(file.file, copy)
        copy.flush()
        path = Path(copy.name)

        def create(session: Session) -> FileObject:
            return file_object(service.create_file(session, artifacts, caller.project_id, path, filename, purpose))

        # Of the content: every multipart body has a boundary of its own.
        return once.create(json.dumps([purpose, filename, sha256_of(path)]), create)


@router.get("")
def list_files(
    caller: ReaderDep,
    purpose: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
) -> ListObject[FileObject]:
    """The project's files."""
    with transaction() as session:
        page = service.list_files(session, caller.project_id, purpose, after, limit, order == "asc")
    return list_object([file_object(row) for row in page.rows], page.has_more)


@router.get("/{file_id}")
def retrieve_file(caller: ReaderDep, file_id: str) -> FileObject:
    """One file's description."""
    with transaction() as session:
        return file_object(service.get_file(session, caller.project_id, file_id))


@router.get("/{file_id}/content")
def file_content(caller: ReaderDep, artifacts: ArtifactsDep, file_id: str) -> StreamingResponse:
    """One file's bytes."""
    with transaction() as session:
        file = service.get_file(session, caller.project_id, file_id)
    headers = {"content-length": str(file.bytes), "content-disposition": "attachment"}
    return StreamingResponse(
        artifacts.stream(service.content_key(file.id)), media_type="application/octet-stream", headers=headers
    )


@router.delete("/{file_id}")
def delete_file(caller: WriterDep, artifacts: ArtifactsDep, file_id: str) -> FileDeleted:
    """Delete a file; jobs and batches made from it keep their own copy."""
    with transaction() as session:
        service.delete_file(session, artifacts, caller.project_id, file_id)
    return FileDeleted(id=file_id)
