"""The content of files: checked, measured and stored as a stream, whatever its size."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from manyicl_core.errors import InvalidRequest
from manyicl_core.ids import new_id
from manyicl_core.jsonl import UnreadableFile, jsonl_lines
from manyicl_core.method.dataset import MAX_LINE_BYTES, InvalidDataset, read_rows
from manyicl_core.objects import ArtifactStore
from manyicl_core.settings import get_settings

MAX_BATCH_BYTES = 200 * 1024 * 1024
"""Of a batch's input, inflated."""


@dataclass(frozen=True, slots=True)
class StoredContent:
    """What lies in the artifact store for a file of this id."""

    file_id: str
    bytes: int
    sha256: str


class Measured:
    """Chunks as they pass by: how many ``bytes``, and their hashes."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.bytes = 0
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False)

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.bytes += len(chunk)
            self.sha256.update(chunk)
            self.md5.update(chunk)
            yield chunk


def content_key(file_id: str) -> str:
    """Where a file's content lies."""
    return f"files/{file_id}"


@contextmanager
def stored_content(store: ArtifactStore, chunks: Iterable[bytes]) -> Iterator[StoredContent]:
    """Store the content of a file to be; unless the block succeeds, it is taken away again.

    Raises:
        StorageFull: there is no room.
    """
    file_id = new_id("file-")
    measured = Measured(chunks)
    store.put_stream(content_key(file_id), measured)
    try:
        yield StoredContent(file_id, measured.bytes, measured.sha256.hexdigest())
    except BaseException:
        store.delete(content_key(file_id))
        raise


def usable_bytes(purpose: str) -> int:
    """The most that what a file is for reads of it, inflated; nothing reads those of other purposes."""
    settings = get_settings()
    return {"fine-tune": settings.max_file_bytes, "batch": MAX_BATCH_BYTES}.get(purpose, settings.max_upload_bytes)


def check_content(purpose: str, filename: str, chunks: Iterable[bytes]) -> None:
    """Refuse a training file with a wrong line, and a training or batch file that is too large or bad gzip.

    The requests in a batch's file are checked when the batch is created: other limits hold there.

    Raises:
        InvalidRequest: with the line.
    """
    lines = jsonl_lines(chunks, usable_bytes(purpose), MAX_LINE_BYTES)
    number = 0
    try:
        if purpose == "fine-tune":
            for _ in read_rows(lines):
                pass
        elif purpose == "batch":
            for _ in lines:
                number += 1
    except InvalidDataset as error:
        raise InvalidRequest(f"{filename}: {error}", "file", "invalid_file") from error
    except UnreadableFile as error:
        raise InvalidRequest(f"{filename}: line {number + 1}: {error}", "file", "invalid_file") from error
