"""Files: upload, list, retrieve, content, delete."""

import json
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from api.creation import OnceDep
from api.dependencies import ArtifactsDep, ReaderDep, WriterDep
from api.in_thread import in_thread
from api.routes.lists import ListObject, list_object
from manyicl_core.errors import InvalidRequest, TooLarge
from manyicl_core.jsonl import chunks_of
from manyicl_core.settings import get_settings
from manyicl_core.store.files import service
from manyicl_core.store.files.content import check_content, content_key, stored_content, usable_bytes
from manyicl_core.store.files.schemas import (
    MAX_SECONDS,
    MIN_SECONDS,
    FileDeleted,
    FileObject,
    UploadPurpose,
    file_object,
)
from manyicl_core.store.quotas.service import check_bytes
from manyicl_core.store.session import reading, transaction

router = APIRouter(prefix="/files", tags=["files"])


@router.post("")
@in_thread
def create_file(
    caller: WriterDep,
    artifacts: ArtifactsDep,
    once: OnceDep,
    file: UploadFile,
    purpose: Annotated[UploadPurpose, Form()],
    anchor: Annotated[Literal["created_at"] | None, Form(alias="expires_after[anchor]")] = None,
    seconds: Annotated[int | None, Form(alias="expires_after[seconds]", ge=MIN_SECONDS, le=MAX_SECONDS)] = None,
) -> FileObject:
    """Upload a file; one for fine-tuning, JSONL or gzip of it, is checked line by line."""
    if (anchor is None) != (seconds is None):
        raise InvalidRequest("expires_after: give both anchor and seconds, or neither", "expires_after")
    size, usable, largest = file.size or 0, usable_bytes(purpose), get_settings().max_file_bytes
    if size > usable:
        raise TooLarge(f"file: {size} bytes; one with the purpose {purpose!r} may have {usable}: split it", "file")
    if size > largest:
        raise TooLarge(f"file: {size} bytes; a file may have {largest}: send a larger one as an upload", "file")
    filename = service.checked_name(file.filename or "file")
    if once.is_new:
        with reading() as session:
            check_bytes(session, caller.project_id, size)
    check_content(purpose, filename, chunks_of(file.file))
    file.file.seek(0)
    with stored_content(artifacts, chunks_of(file.file)) as content:

        def create(session: Session) -> FileObject:
            row = service.create_file(session, caller.project_id, content, filename, purpose, seconds)
            return file_object(row)

        # Of the content: every multipart body has a boundary of its own.
        return once.create(json.dumps([purpose, filename, seconds, content.sha256]), create)


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


@router.get(
    "/{file_id}/content",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
)
def file_content(caller: ReaderDep, artifacts: ArtifactsDep, file_id: str) -> StreamingResponse:
    """One file's bytes."""
    with transaction() as session:
        file = service.get_file(session, caller.project_id, file_id)
    headers = {"content-length": str(file.bytes), "content-disposition": "attachment"}
    return StreamingResponse(
        artifacts.stream(content_key(file.id)), media_type="application/octet-stream", headers=headers
    )


@router.delete("/{file_id}")
def delete_file(caller: WriterDep, artifacts: ArtifactsDep, file_id: str) -> FileDeleted:
    """Delete a file; jobs and batches made from it keep their own copy."""
    with transaction() as session:
        service.delete_file(session, artifacts, caller.project_id, file_id)
    return FileDeleted(id=file_id)
