import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Upload
from sqlalchemy import event, func, update

from manyicl_core.objects import open_store
from manyicl_core.settings import get_settings, required
from manyicl_core.store.engine import get_engine
from manyicl_core.store.files import content
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Upload as UploadRow
from manyicl_core.store.uploads import schemas
from manyicl_core.store.uploads.parts import remove_parts
from tests.jobs import example_lines
from tests.services import on_both_stores

RETRY = {"x-stainless-retry-count": "1"}
CONTENT = "\n".join(json.dumps(line) for line in example_lines(0, 50)).encode()


def begin(client: OpenAI, content: bytes = CONTENT) -> Upload:
    return client.uploads.create(
        bytes=len(content), filename="big.jsonl", mime_type="application/jsonl", purpose="fine-tune"
    )


def send(client: OpenAI, upload: Upload, *parts: bytes) -> list[str]:
    return [client.uploads.parts.create(upload.id, data=io.BytesIO(part)).id for part in parts]


def kept_parts(upload: Upload) -> list[str]:
    return open_store(required(get_settings(), "storage_url")).names(f"uploads/{upload.id}")


@on_both_stores
def test_the_client_uploads_a_file_in_chunks(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    path.write_bytes(CONTENT)
    upload = client.uploads.upload_file_chunked(
        file=path, mime_type="application/jsonl", purpose="fine-tune", part_size=len(CONTENT) // 3
    )
    assert upload.status == "completed" and upload.file is not None
    assert client.files.content(upload.file.id).read() == CONTENT
    assert client.files.retrieve(upload.file.id) == upload.file
    assert (upload.file.bytes, upload.file.filename) == (len(CONTENT), "big.jsonl")
    assert kept_parts(upload) == []


@on_both_stores
def test_parts_larger_than_a_stores_make_one_file(client: OpenAI, tmp_path: Path) -> None:
    """S3 has parts of its own, of 5 MB and more."""
    path = tmp_path / "notes"
    path.write_bytes(os.urandom(13_000_001))
    upload = client.uploads.upload_file_chunked(
        file=path, mime_type="text/plain", purpose="user_data", part_size=6_000_000
    )
    assert upload.file is not None
    assert client.files.content(upload.file.id).read() == path.read_bytes()


def test_a_broken_upload_goes_on_where_it_was_with_parts_in_any_order(client: OpenAI) -> None:
    upload = begin(client)
    parts = [CONTENT[:1000], CONTENT[1000:2000], CONTENT[2000:]]
    last, first, first_again = send(client, upload, parts[2], parts[0], parts[0])
    there = client.get(f"/uploads/{upload.id}/parts", cast_to=object)
    assert [(part["id"], part["md5"]) for part in there["data"]] == [  # type: ignore[index]
        (id_, hashlib.md5(part, usedforsecurity=False).hexdigest())
        for id_, part in zip((last, first, first_again), (parts[2], parts[0], parts[0]), strict=True)
    ]
    [listed] = client.get("/uploads", cast_to=object)["data"]  # type: ignore[index]
    assert (listed["id"], listed["status"]) == (upload.id, "pending")
    [middle] = send(client, upload, parts[1])
    with pytest.raises(openai.BadRequestError, match="md5: the parts have"):
        client.uploads.complete(upload.id, part_ids=[first, middle, last], md5="0" * 32)
    for wrong in ([first, last], [first, middle, "part_gone"], [first, first, last]):
        with pytest.raises(openai.BadRequestError, match="part_ids"):
            client.uploads.complete(upload.id, part_ids=wrong)
    assert client.files.list().data == []
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    done = client.uploads.complete(upload.id, part_ids=[first, middle, last], md5=md5)
    assert done.file is not None
    assert client.files.content(done.file.id).read() == CONTENT
    # A client that got no answer asks again; any other request comes too late.
    assert client.uploads.complete(upload.id, part_ids=[first, middle, last]).file == done.file
    with pytest.raises(openai.ConflictError, match="completed"):
        client.uploads.complete(upload.id, part_ids=[first])
    assert len(client.files.list().data) == 1


def test_a_list_of_uploads_tells_their_files_with_one_query(client: OpenAI) -> None:
    files = []
    for _ in range(3):
        upload = begin(client)
        done = client.uploads.complete(upload.id, part_ids=send(client, upload, CONTENT))
        assert done.file is not None
        files.append(done.file.id)
    client.files.delete(files[0])
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    event.listen(get_engine(), "before_cursor_execute", note)
    listed: Any = client.get("/uploads", cast_to=object)
    event.remove(get_engine(), "before_cursor_execute", note)
    assert [one["file"] and one["file"]["id"] for one in listed["data"]] == [files[2], files[1], None]
    assert sum("FROM files" in statement for statement in statements) == 1


def test_the_retry_of_a_part_adds_one_since_a_file_may_have_equal_parts(client: OpenAI) -> None:
    upload = begin(client, b"xx")
    create = client.uploads.parts.create
    first, second = create(upload.id, data=b"x"), create(upload.id, data=b"x", extra_headers=RETRY)
    assert first.id != second.id
    keyed = [create(upload.id, data=b"x", extra_headers={**RETRY, "Idempotency-Key": "mine"}).id for _ in range(2)]
    assert keyed[0] == keyed[1]


def test_a_wrong_line_is_refused_at_the_end_and_corrected_by_another_part(client: OpenAI) -> None:
    upload = begin(client)
    wrong, right = send(client, upload, b"x" * len(CONTENT), CONTENT)
    with pytest.raises(openai.BadRequestError, match=r"big.jsonl: line 1: invalid JSON"):
        client.uploads.complete(upload.id, part_ids=[wrong])
    assert client.files.list().data == []
    assert client.uploads.complete(upload.id, part_ids=[right]).status == "completed"


def test_a_cancelled_or_expired_upload_takes_nothing_and_keeps_nothing(client: OpenAI) -> None:
    cancelled, expired = begin(client), begin(client)
    for upload in (cancelled, expired):
        send(client, upload, CONTENT[:100])
    assert client.uploads.cancel(cancelled.id).status == "cancelled"
    with transaction() as session:
        session.execute(update(UploadRow).where(UploadRow.id == expired.id).values(expires_at=func.now()))
    remove_parts(open_store(required(get_settings(), "storage_url")))
    for upload in (cancelled, expired):
        assert kept_parts(upload) == []
        with pytest.raises(openai.ConflictError) as refused:
            send(client, upload, CONTENT)
        assert refused.value.response.headers["x-should-retry"] == "false"
        assert kept_parts(upload) == []
    assert client.get(f"/uploads/{expired.id}", cast_to=Upload).status == "expired"


def test_limits_are_told_before_work_begins(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    largest: dict[Any, int] = {"fine-tune": 512 << 20, "batch": 200 << 20, "user_data": 8 << 30}
    for purpose, bytes_ in largest.items():
        upload = client.uploads.create(bytes=bytes_, filename="a", mime_type="text/plain", purpose=purpose)
        client.uploads.cancel(upload.id)
        with pytest.raises(openai.BadRequestError, match=f"'{purpose}' may have {bytes_}: split") as refused:
            client.uploads.create(bytes=bytes_ + 1, filename="a", mime_type="text/plain", purpose=purpose)
        assert refused.value.param == "bytes"
    with monkeypatch.context() as small:
        small.setattr(content, "MAX_BATCH_BYTES", 1)
        with pytest.raises(openai.APIStatusError, match="'batch' may have 1: split"):
            client.files.create(file=b"{}", purpose="batch")
    with pytest.raises(openai.BadRequestError, match="control characters"):
        client.uploads.create(bytes=1, filename="a\n", mime_type="text/plain", purpose="fine-tune")
    upload = begin(client)
    with pytest.raises(openai.APIStatusError) as too_large:
        send(client, upload, b"x" * (schemas.PART_BYTES + (1 << 17)))
    assert too_large.value.status_code == 413
    with pytest.raises(openai.BadRequestError, match="start an upload with as many bytes"):
        send(client, upload, b"x" * (2 * len(CONTENT) + 1))
    assert kept_parts(upload) == []
