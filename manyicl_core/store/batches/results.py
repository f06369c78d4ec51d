"""The results of a batch: a line a request, kept in chunks while it runs, in two files at its end."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from manyicl_core.ids import new_id
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.batches.lines import BatchRequest, read_requests
from manyicl_core.store.tables import BatchChunk

_SUCCESS = 200


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one request: an answer's body, or the error in its place."""

    custom_id: str
    status: int
    request_id: str
    body: Mapping[str, Any]

    @property
    def succeeded(self) -> bool:
        """Whether the body is an answer."""
        return self.status == _SUCCESS

    def line(self) -> bytes:
        """OpenAI's line of an output or error file."""
        response = {"status_code": self.status, "request_id": self.request_id, "body": self.body}
        return _line(self.custom_id, response, None)


def input_key(batch_id: str) -> str:
    """Where a batch's own copy of its file lies."""
    return f"batches/{batch_id}/input"


def fetch_input(store: ArtifactStore, batch_id: str, folder: Path) -> Path:
    """The batch's file, fetched into ``folder``."""
    store.get_folder(f"batches/{batch_id}", ["input"], folder)
    return folder / "input"


def chunk_key(batch_id: str, fence: int, number: int) -> str:
    """Where a chunk of results lies; with the fence, so that a stale worker never writes where another reads."""
    return f"batches/{batch_id}/{fence}-{number:06d}"


def delete_work_files(store: ArtifactStore, batch_id: str) -> None:
    """Delete the copy of the file and all chunks, those that were never recorded too."""
    for name in store.names(f"batches/{batch_id}"):
        store.delete(f"batches/{batch_id}/{name}")


def recorded_chunks(session: Session, batch_id: str) -> Sequence[BatchChunk]:
    """The chunks that are done for good, in the order in which they came."""
    return session.scalars(select(BatchChunk).where(BatchChunk.batch_id == batch_id).order_by(BatchChunk.number)).all()


def done_ids(store: ArtifactStore, chunks: Sequence[BatchChunk]) -> set[str]:
    """The ``custom_id`` of every request that has a result."""
    return {content["custom_id"] for content, _ in _recorded_lines(store, chunks)}


@dataclass(frozen=True, slots=True)
class ResultFiles:
    """Files on this machine; a file without a line is None."""

    output: Path | None
    errors: Path | None


def write_result_files(
    store: ArtifactStore,
    chunks: Sequence[BatchChunk],
    requests: Path,
    folder: Path,
    never_sent: dict[str, str],
) -> ResultFiles:
    """Write each request of the batch once: its answer into one file, its error into the other.

    Args:
        store: holds the chunks.
        chunks: all that are recorded.
        requests: the batch's input file.
        folder: where the two files go.
        never_sent: the ``error`` of requests without a result.
    """
    files = ResultFiles(folder / "output.jsonl", folder / "errors.jsonl")
    assert files.output is not None and files.errors is not None
    done: set[str] = set()
    with files.output.open("wb") as output, files.errors.open("wb") as errors:
        for content, line in _recorded_lines(store, chunks):
            done.add(content["custom_id"])
            (output if content["response"]["status_code"] == _SUCCESS else errors).write(line)
        for request in without(read_requests(requests), done):
            errors.write(_line(request.custom_id, None, never_sent))
    return ResultFiles(*(path if path.stat().st_size else None for path in (files.output, files.errors)))


def without(requests: Iterator[BatchRequest], done: set[str]) -> Iterator[BatchRequest]:
    """The requests that are left."""
    return (request for request in requests if request.custom_id not in done)


def _recorded_lines(store: ArtifactStore, chunks: Sequence[BatchChunk]) -> Iterator[tuple[dict[str, Any], bytes]]:
    for chunk in chunks:
        for line in store.get(chunk.key).splitlines(keepends=True):
            yield json.loads(line), line


def _line(custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None) -> bytes:
    content = {"id": new_id("batch_req_"), "custom_id": custom_id, "response": response, "error": error}
    return json.dumps(content).encode() + b"\n"
