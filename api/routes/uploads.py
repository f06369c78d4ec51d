"""Uploads: files of many gigabytes in parts, which outlive a broken connection."""

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Query, UploadFile

from api.creation import OnceDep
from api.dependencies import ArtifactsDep, ReaderDep, WriterDep
from api.routes.lists import ListObject, list_object
from manyicl_core.errors import Conflict, TooLarge
from manyicl_core.jsonl import chunks_of
from manyicl_core.store.files.content import check_content, stored_content
from manyicl_core.store.projects.service import Caller
from manyicl_core.store.session import transaction
from manyicl_core.store.uploads import service
from manyicl_core.store.uploads.parts import composed, remove_parts, stored_part, with_md5
from manyicl_core.store.uploads.schemas import (
    MAX_PARTS,
    PART_BYTES,
    CompleteUpload,
    CreateUpload,
    PartObject,
    UploadObject,
    part_object,
    upload_object,
)

_MULTIPART_OVERHEAD = 1 << 16

router = APIRouter(prefix="/uploads", tags=["uploads"])


@router.post("")
def create_upload(caller: WriterDep, once: OnceDep, body: CreateUpload) -> UploadObject:
    """Announce a file that comes in parts; it has a day to arrive."""
    return once.create(body, lambda session: upload_object(service.create_upload(session, caller.project_id, body)))


@router.get("")
def list_uploads(
    caller: ReaderDep, after: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 20
) -> ListObject[UploadObject]:
    """The project's uploads, newest first."""
    with transaction() as session:
        page = service.list_uploads(session, caller.project_id, after, limit)
        files = service.uploaded_files(session, page.rows)
    return list_object([upload_object(upload, files.get(upload.id)) for upload in page.rows], page.has_more)


@router.get("/{upload_id}")
def retrieve_upload(caller: ReaderDep, upload_id: str) -> UploadObject:
    """One upload."""
    with transaction() as session:
        upload = service.get_upload(session, caller.project_id, upload_id)
        return upload_object(upload, service.uploaded_file(session, upload))


@router.post("/{upload_id}/parts", max_body_size=PART_BYTES + _MULTIPART_OVERHEAD)
def create_upload_part(
    caller: WriterDep, artifacts: ArtifactsDep, once: OnceDep, upload_id: str, data: UploadFile
) -> PartObject:
    """Send a part, of at most 64 MiB."""
    if (data.size or 0) > PART_BYTES:
        raise TooLarge(f"data: {data.size} bytes; a part may have {PART_BYTES}", "data")
    with transaction() as session:
        service.pending_upload(session, caller.project_id, upload_id)
    # A file may have two equal parts: the retry of the second must not get the first one's id. A spare part
    # does no harm.
    once = replace(once, retry=False)
    with stored_part(artifacts, upload_id, chunks_of(data.file)) as part:
        return once.create(
            part.md5, lambda session: part_object(service.add_part(session, caller.project_id, upload_id, part))
        )


@router.get("/{upload_id}/parts")
def list_upload_parts(
    caller: ReaderDep,
    upload_id: str,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PARTS)] = 100,
    order: Literal["asc", "desc"] = "asc",
) -> ListObject[PartObject]:
    """The parts that have arrived, in that order: what is there need not be sent again."""
    with transaction() as session:
        page = service.list_parts(session, caller.project_id, upload_id, after, limit, order == "asc")
    return list_object([part_object(row) for row in page.rows], page.has_more)


@router.post("/{upload_id}/complete")
def complete_upload(caller: WriterDep, artifacts: ArtifactsDep, upload_id: str, body: CompleteUpload) -> UploadObject:
    """Make a file of the parts, in the order given; it is checked as any file is."""
    if (done := _completed(caller, upload_id, body)) is not None:
        return done
    with transaction() as session:
        upload = service.pending_upload(session, caller.project_id, upload_id)
        service.check_parts(session, upload, body.part_ids)
    # Outside of any transaction: gigabytes take minutes.
    parts = composed(artifacts, upload_id, body.part_ids)
    check_content(upload.purpose, upload.filename, parts)
    chunks = with_md5(composed(artifacts, upload_id, body.part_ids), body.md5)
    try:
        with stored_content(artifacts, chunks) as content, transaction() as session:
            service.complete_upload(session, caller.project_id, upload_id, body.part_ids, content)
    except Conflict:
        # A client that waited too long for its answer asks twice at once.
        if (done := _completed(caller, upload_id, body)) is None:
            raise
        return done
    remove_parts(artifacts)
    done = _completed(caller, upload_id, body)
    assert done is not None
    return done


def _completed(caller: Caller, upload_id: str, body: CompleteUpload) -> UploadObject | None:
    """The upload, if these very parts have been made a file."""
    with transaction() as session:
        upload = service.get_upload(session, caller.project_id, upload_id)
        if upload.part_ids != body.part_ids:
            return None
        return upload_object(upload, service.uploaded_file(session, upload))


@router.post("/{upload_id}/cancel")
def cancel_upload(caller: WriterDep, artifacts: ArtifactsDep, upload_id: str) -> UploadObject:
    """Give up an upload; its parts are deleted."""
    with transaction() as session:
        cancelled = upload_object(service.cancel_upload(session, caller.project_id, upload_id))
    remove_parts(artifacts)
    return cancelled
