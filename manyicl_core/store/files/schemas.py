"""Files as the OpenAI API shows them."""

from typing import Literal

from pydantic import BaseModel, Field

from manyicl_core.request_body import RequestBody
from manyicl_core.store.tables import File

UploadPurpose = Literal["fine-tune", "batch", "assistants", "vision", "user_data"]
RESULTS_PURPOSE = "fine-tune-results"
BATCH_OUTPUT_PURPOSE = "batch_output"


MIN_SECONDS, MAX_SECONDS = 3600, 30 * 24 * 3600
"""How long a file that expires may be kept."""

MAX_NAME_CHARACTERS = 255


class ExpiresAfter(RequestBody):
    """OpenAI's ``expires_after``: the file is gone so many seconds after its creation."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=MIN_SECONDS, le=MAX_SECONDS)


class FileObject(BaseModel):
    """OpenAI's ``FileObject``. A stored file is always checked, hence ``processed``."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: str | None = None


class FileDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


def file_object(file: File) -> FileObject:
    """A row as the API shows it."""
    return FileObject(
        id=file.id,
        bytes=file.bytes,
        created_at=int(file.created_at.timestamp()),
        expires_at=None if file.expires_at is None else int(file.expires_at.timestamp()),
        filename=file.filename,
        purpose=file.purpose,
    )
