"""Files, uploads and batches."""

import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import openai
from openai import OpenAI

from tests.clients.methods import Methods, refused

EXAMPLES = [
    {"task": "colour", "input": f"thing {number}", "output": "red" if number % 2 else "blue"} for number in range(24)
]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    """Rows as a file."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def check_files(client: OpenAI, methods: Methods) -> None:
    """From upload to deletion."""
    content = jsonl(EXAMPLES)
    with methods("files.create"):
        file = client.files.create(file=("examples.jsonl", io.BytesIO(content)), purpose="fine-tune")
        assert (file.object, file.bytes, file.filename) == ("file", len(content), "examples.jsonl")
    with methods("files.retrieve"):
        assert client.files.retrieve(file.id).id == file.id
    with methods("files.wait_for_processing"):
        assert client.files.wait_for_processing(file.id, poll_interval=0.1).status == "processed"
    with methods("files.list"):
        other = client.files.create(file=("more.jsonl", content), purpose="fine-tune")
        found = [listed.id for listed in client.files.list(purpose="fine-tune", limit=1)]
        assert found.index(other.id) < found.index(file.id), "newest first, page by page"
    with methods("files.content"):
        assert client.files.content(file.id).read() == content
    with methods("files.retrieve_content"):
        retrieve: Any = client.files.retrieve_content
        assert retrieve(file.id) == content.decode()
    with methods("files.delete"):
        assert client.files.delete(other.id).deleted
        assert refused(lambda: client.files.retrieve(other.id)).status_code == 404


def check_uploads(client: OpenAI, methods: Methods) -> None:
    """Parts that become a file."""
    content = jsonl(EXAMPLES)
    options: Any = {"filename": "parts.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
    with methods("uploads.create"):
        upload = client.uploads.create(bytes=len(content), **options)
        assert (upload.object, upload.status, upload.bytes) == ("upload", "pending", len(content))
    with methods("uploads.parts.create"):
        parts = [client.uploads.parts.create(upload.id, data=half) for half in (content[:100], content[100:])]
        assert {part.upload_id for part in parts} == {upload.id}
    with methods("uploads.complete"):
        completed = client.uploads.complete(upload.id, part_ids=[part.id for part in parts])
        assert completed.status == "completed" and completed.file is not None
        assert client.files.content(completed.file.id).read() == content
    with methods("uploads.cancel"):
        assert client.uploads.cancel(client.uploads.create(bytes=10, **options).id).status == "cancelled"
    with methods("uploads.upload_file_chunked"), tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "chunked.jsonl")
        path.write_bytes(content)
        chunked = client.uploads.upload_file_chunked(
            file=path, mime_type="text/jsonl", purpose="fine-tune", part_size=200
        )
        assert chunked.file is not None and chunked.file.bytes == len(content)


def check_batches(client: OpenAI, methods: Methods, model: str, workers: bool) -> None:
    """Queued, listed, cancelled; answered, where workers run."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = client.files.create(file=("requests.jsonl", jsonl([line])), purpose="batch")
    options: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {"run": "1"}}
    with methods("batches.create"):
        first, second = (client.batches.create(input_file_id=file.id, **options) for _ in range(2))
        assert (first.object, first.metadata, first.id != second.id) == ("batch", {"run": "1"}, True)
    with methods("batches.list"):
        assert [batch.id for batch in client.batches.list(limit=1)][:2] == [second.id, first.id]
    with methods("batches.cancel"):
        try:
            assert client.batches.cancel(second.id).status in ("cancelling", "cancelled")
        except openai.ConflictError:
            assert workers, "nobody else could have ended it"
    with methods("batches.retrieve"):
        batch = client.batches.retrieve(first.id)
        while workers and batch.status not in ("completed", "failed", "expired"):
            time.sleep(0.2)
            batch = client.batches.retrieve(first.id)
        assert batch.status == ("completed" if workers else "validating")
        if workers:
            assert batch.output_file_id is not None
            [answer] = client.files.content(batch.output_file_id).text.splitlines()
            assert json.loads(answer)["response"]["body"]["object"] == "chat.completion"
