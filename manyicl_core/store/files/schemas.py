"""Files as the OpenAI API shows them."""

from typing import Literal, get_args

from pydantic import BaseModel

from manyicl_core.store.tables import File

UploadPurpose = Literal["fine-tune", "batch", "assistants", "vision", "user_data", "evals"]
UPLOAD_PURPOSES: tuple[str, ...] = get_args(UploadPurpose)
RESULTS_PURPOSE = "fine-tune-results"
BATCH_OUTPUT_PURPOSE = "batch_output"


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
        filename=file.filename,
        purpose=file.purpose,
    )
