"""Start, feed, complete and cancel uploads: what the api asks for."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from manyicl_core.errors import Conflict, InvalidRequest, NotFound
from manyicl_core.ids import new_id
from manyicl_core.settings import get_settings
from manyicl_core.store.creations import forget_made
from manyicl_core.store.files.content import StoredContent, usable_bytes
from manyicl_core.store.files.service import checked_name, create_file
from manyicl_core.store.pages import Page, fetch_created
from manyicl_core.store.quotas.service import admit_bytes
from manyicl_core.store.tables import File, Upload, UploadPart
from manyicl_core.store.uploads.parts import StoredPart
from manyicl_core.store.uploads.schemas import MAX_PARTS, CreateUpload, upload_status

_LIFETIME = timedelta(hours=24)


def create_upload(session: Session, project_id: str, request: CreateUpload) -> Upload:
    """Announce a file that comes in parts.

    Raises:
        InvalidRequest: it would be too large, or its name is no good.
        QuotaExceeded: the project may not keep so much.
    """
    largest = min(usable_bytes(request.purpose), get_settings().max_upload_bytes)
    if request.bytes > largest:
        raise InvalidRequest(
            f"bytes: {request.bytes}; an upload for the purpose {request.purpose!r} may have {largest}: split it",
            "bytes",
        )
    upload = Upload(
        id=new_id("upload_"),
        project_id=project_id,
        bytes=request.bytes,
        filename=checked_name(request.filename, "filename"),
        mime_type=request.mime_type,
        purpose=request.purpose,
        file_seconds=None if request.expires_after is None else request.expires_after.seconds,
        expires_at=func.now() + _LIFETIME,
    )
    admit_bytes(session, project_id, request.bytes)
    session.add(upload)
    session.flush()
    session.refresh(upload)
    return upload


def get_upload(session: Session, project_id: str, upload_id: str) -> Upload:
    """One upload of the project.

    Raises:
        NotFound: the project has no such upload.
    """
    upload = session.scalar(select(Upload).where(Upload.id == upload_id, Upload.project_id == project_id))
    if upload is None:
        raise NotFound("upload", upload_id)
    return upload


def pending_upload(session: Session, project_id: str, upload_id: str) -> Upload:
    """An upload that still takes parts, locked until the transaction ends.

    Raises:
        NotFound: the project has no such upload.
        Conflict: it is over.
    """
    upload = get_upload(session, project_id, upload_id)
    session.refresh(upload, with_for_update=True)
    if (status := upload_status(upload)) != "pending":
        raise Conflict(f"The upload is {status}; start a new one")
    return upload


def uploaded_file(session: Session, upload: Upload) -> File | None:
    """The file that it became, unless that is gone again."""
    return uploaded_files(session, [upload]).get(upload.id)


def uploaded_files(session: Session, uploads: Sequence[Upload]) -> dict[str, File]:
    """By the uploads' ids, the files that they became and that are not gone again."""
    ids = [upload.file for upload in uploads if upload.file is not None]
    files = {file.id: file for file in session.scalars(select(File).where(File.id.in_(ids)))} if ids else {}
    return {upload.id: files[upload.file] for upload in uploads if upload.file in files}


def list_uploads(session: Session, project_id: str, after: str | None, limit: int) -> Page[Upload]:
    """A page of uploads, newest first."""
    query = select(Upload).where(Upload.project_id == project_id)
    return fetch_created(session, query, Upload.project_id, project_id, after, limit, "upload")


def list_parts(
    session: Session, project_id: str, upload_id: str, after: str | None, limit: int, ascending: bool
) -> Page[UploadPart]:
    """A page of the parts that have arrived, by arrival.

    Raises:
        NotFound: the project has no such upload, or the upload no such part.
    """
    upload = get_upload(session, project_id, upload_id)
    query = select(UploadPart).where(UploadPart.upload_id == upload.id)
    return fetch_created(session, query, UploadPart.upload_id, upload.id, after, limit, "part", ascending)


def add_part(session: Session, project_id: str, upload_id: str, part: StoredPart) -> UploadPart:
    """Keep a part whose content is stored.

    There may be up to twice the announced bytes, so that a wrong part can be sent again: completing
    says which parts count. What is more than announced must fit into the project's quota.

    Raises:
        NotFound: the project has no such upload.
        Conflict: it is over.
        InvalidRequest: the parts are too many, or too large.
        QuotaExceeded: the project may not keep so much.
    """
    upload = pending_upload(session, project_id, upload_id)
    query = select(func.count(), func.coalesce(func.sum(UploadPart.bytes), 0)).where(UploadPart.upload_id == upload.id)
    count, there = session.execute(query).one()
    if there + part.bytes > 2 * upload.bytes:
        raise InvalidRequest(
            f"data: with this part there are {there + part.bytes} bytes, for a file of {upload.bytes}; "
            "start an upload with as many bytes as the file has",
            "data",
        )
    if count >= MAX_PARTS:
        raise InvalidRequest(f"data: an upload has at most {MAX_PARTS} parts; send larger ones", "data")
    beyond = there + part.bytes - max(upload.bytes, there)
    if beyond > 0:
        admit_bytes(session, project_id, beyond)
    row = UploadPart(id=part.part_id, upload_id=upload.id, bytes=part.bytes, md5=part.md5)
    session.add(row)
    session.flush()
    session.refresh(row)
    return row


def check_parts(session: Session, upload: Upload, part_ids: Sequence[str]) -> None:
    """Refuse a list of parts that is not the announced file.

    Raises:
        InvalidRequest: a part is named twice or is not there, or bytes are missing or too many.
    """
    if len(set(part_ids)) != len(part_ids):
        raise InvalidRequest("part_ids: a part is named twice; name each once", "part_ids")
    query = select(UploadPart.id, UploadPart.bytes).where(UploadPart.upload_id == upload.id)
    there = dict(iter(session.execute(query)))
    missing = next((id_ for id_ in part_ids if id_ not in there), None)
    if missing is not None:
        raise InvalidRequest(f"part_ids: the upload has no part {missing!r}; send it, or leave it out", "part_ids")
    total = sum(there[id_] for id_ in part_ids)
    if total != upload.bytes:
        raise InvalidRequest(
            f"part_ids: the parts have {total} bytes and the file {upload.bytes}; name all of its parts", "part_ids"
        )


def complete_upload(
    session: Session, project_id: str, upload_id: str, part_ids: list[str], file: StoredContent
) -> Upload:
    """Make the composed content a file, and the upload complete.

    Raises:
        NotFound: the project has no such upload.
        Conflict: it is over meanwhile.
    """
    upload = pending_upload(session, project_id, upload_id)
    # First, so that its bytes do not count twice for the quota.
    upload.state = "completed"
    create_file(session, project_id, file, upload.filename, upload.purpose, upload.file_seconds)
    upload.file = file.file_id
    upload.part_ids = part_ids
    return upload


def cancel_upload(session: Session, project_id: str, upload_id: str) -> Upload:
    """Take no more parts, and forget those that are there.

    Raises:
        NotFound: the project has no such upload.
        Conflict: it is over.
    """
    upload = pending_upload(session, project_id, upload_id)
    upload.state = "cancelled"
    forget_made(session, upload.id)
    return upload
