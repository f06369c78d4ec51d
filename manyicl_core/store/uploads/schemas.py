"""Uploads as the OpenAI API takes and shows them, and their parts, which can be listed here."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from manyicl_core.request_body import RequestBody
from manyicl_core.store.files.schemas import ExpiresAfter, FileObject, UploadPurpose, file_object
from manyicl_core.store.tables import File, Upload, UploadPart

PART_BYTES = 64 * 1024 * 1024
MAX_PARTS = 10_000

UploadStatus = Literal["pending", "completed", "cancelled", "expired"]

_PartId = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class CreateUpload(RequestBody):
    """The body of ``POST /v1/uploads``; ``bytes`` are those of the whole file."""

    bytes: int = Field(ge=0, le=2**53)
    filename: str
    mime_type: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    purpose: UploadPurpose
    expires_after: ExpiresAfter | None = None


class CompleteUpload(RequestBody):
    """The body of ``POST /v1/uploads/{id}/complete``; ``md5`` is that of the whole file, in hex."""

    part_ids: Annotated[list[_PartId], Field(max_length=MAX_PARTS)]
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{32}$")] | None = None


class UploadObject(BaseModel):
    """OpenAI's ``Upload``."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    mime_type: str
    purpose: str
    status: UploadStatus
    file: FileObject | None


class PartObject(BaseModel):
    """OpenAI's ``UploadPart``, with what tells a client that comes back whether it is the right one."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str
    bytes: int
    md5: str


def upload_object(upload: Upload, file: File | None = None) -> UploadObject:
    """A row as the API shows it, with the file that it became while that is there."""
    return UploadObject(
        id=upload.id,
        bytes=upload.bytes,
        created_at=int(upload.created_at.timestamp()),
        expires_at=int(upload.expires_at.timestamp()),
        filename=upload.filename,
        mime_type=upload.mime_type,
        purpose=upload.purpose,
        status=upload_status(upload),
        file=None if file is None else file_object(file),
    )


def upload_status(upload: Upload) -> UploadStatus:
    """OpenAI's word for where the upload stands."""
    if upload.state == "completed":
        return "completed"
    if upload.state == "cancelled":
        return "cancelled"
    return "expired" if upload.is_late else "pending"


def part_object(part: UploadPart) -> PartObject:
    """A row as the API shows it."""
    return PartObject(
        id=part.id,
        created_at=int(part.created_at.timestamp()),
        upload_id=part.upload_id,
        bytes=part.bytes,
        md5=part.md5,
    )
