import gzip
import json
from datetime import timedelta

import openai
import pytest
from openai import OpenAI
from sqlalchemy import func, update

from manyicl_core.objects import open_store
from manyicl_core.settings import get_settings, required
from manyicl_core.store.files.content import content_key
from manyicl_core.store.files.service import remove_expired_files
from manyicl_core.store.pages import forget_deleted
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import DeletedRow, File
from tests.jobs import example_lines, upload
from tests.services import on_both_stores


def chat_line(*messages: tuple[str, str], **last: object) -> bytes:
    """A chat line; ``last`` are further fields of its last message."""
    written: list[dict[str, object]] = [{"role": role, "content": content} for role, content in messages]
    written[-1] |= last
    return json.dumps({"messages": written}).encode()


LINE = b'{"task": "t", "input": "a", "output": "b"}\n'


@pytest.mark.parametrize("packed", [False, True])
@on_both_stores
def test_a_file_lives_from_upload_to_deletion(client: OpenAI, packed: bool) -> None:
    content = gzip.compress(LINE, mtime=0) if packed else LINE
    created = client.files.create(file=("tasks.jsonl", content), purpose="fine-tune")
    assert created.id.startswith("file-")
    assert (created.bytes, created.filename, created.purpose) == (len(content), "tasks.jsonl", "fine-tune")
    assert client.files.wait_for_processing(created.id).status == "processed"
    assert client.files.retrieve(created.id) == created
    assert client.files.content(created.id).read() == content
    assert [file.id for file in client.files.list()] == [created.id]
    assert client.files.delete(created.id).deleted
    with pytest.raises(openai.NotFoundError, match="file"):
        client.files.retrieve(created.id)
    assert client.files.list().data == []


def test_listing_goes_through_all_pages_in_both_orders(client: OpenAI) -> None:
    ids = [upload(client, example_lines(number, 1)) for number in range(5)]
    assert [file.id for file in client.files.list(limit=2)] == ids[::-1]
    assert [file.id for file in client.files.list(limit=2, order="asc")] == ids
    assert client.files.list(limit=2, after=ids[3]).data[0].id == ids[2]
    assert client.files.list(purpose="batch").data == []


def test_files_can_be_deleted_while_their_pages_are_gone_through(client: OpenAI) -> None:
    ids = [upload(client, example_lines(number, 1)) for number in range(5)]
    deleted = []
    for file in client.files.list(limit=2):
        deleted.append(client.files.delete(file.id).id)
    assert deleted == ids[::-1]
    with transaction() as session:
        gone = DeletedRow.id == ids[0]
        session.execute(update(DeletedRow).where(gone).values(deleted_at=func.now() - timedelta(days=2)))
        forget_deleted(session)
    assert client.files.list(after=ids[1]).data == []
    with pytest.raises(openai.NotFoundError):
        client.files.list(after=ids[0])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"task": "t", "input": "a", "output": "b"}\n{oops\n', "line 2: invalid JSON"),
        (b'{"task": "t", "input": "a", "output": "  "}\n', "line 1: 'output' is empty"),
        (b'{"task": "t", "input": "a"}\n', "line 1: 'output' is missing"),
        (b"", "the file holds no example"),
        (b"\xff\n", "line 1: not UTF-8"),
        (LINE + '{"task": "t", "input": "é"'.encode("latin-1"), "line 2: not UTF-8"),
        (LINE.decode().encode("utf-16-le"), "line 1: this is UTF-16"),
        (LINE + b"\xef\xbb\xbf" + LINE, "line 2: invalid JSON"),
        (LINE + b"x" * 5_000_000 + b"\n{", "line 3: invalid JSON"),
        (LINE + b'{"task": "t", "task": "u"}', "line 2: the key 'task' occurs twice"),
        (LINE + b"[" * 5000, "line 2: nested deeper"),
        (LINE + b'{"task": 1e999}', "line 2: the number 1e999 is too large"),
        (LINE + b'{"task": "\\ud800"}', "line 2: half of a surrogate pair"),
        (gzip.compress(LINE + b"{oops", mtime=0), "line 2: invalid JSON"),
        (gzip.compress(LINE * 100, mtime=0)[:-9], "the gzip data ends too early"),
        (gzip.compress(LINE + b"\n" * 5_000_000, mtime=0), "the gzip data inflates more than 100 times"),
        (chat_line(("user", "a"), ("user", "b")), "line 1: 'messages.0' and 'messages.1' are both from the user"),
        (chat_line(("user", "a"), ("assistant", "b"), weight=0), "line 1: every assistant message has the weight 0"),
        (chat_line(("user", "a"), ("assistant", "b"), tool_calls=[]), "line 1: 'messages.1.tool_calls': tools and"),
    ],
)
def test_a_bad_training_file_is_refused_by_line_and_nothing_is_stored(
    client: OpenAI, content: bytes, expected: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("bad.jsonl", content), purpose="fine-tune")
    assert expected in refused.value.message
    assert refused.value.param == "file"
    assert client.files.list().data == []


def test_a_conversation_with_weights_is_a_training_file(client: OpenAI) -> None:
    line = chat_line(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), weight=0)
    created = client.files.create(file=("talks.jsonl", line), purpose="fine-tune")
    assert (created.status, client.files.content(created.id).read()) == ("processed", line)


def test_a_file_expires_when_it_was_said_to(client: OpenAI) -> None:
    kept = upload(client, example_lines(0, 1))
    created = client.files.create(
        file=("a.jsonl", LINE), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert created.expires_at == created.created_at + 3600
    with transaction() as session:
        session.execute(update(File).where(File.id == created.id).values(expires_at=func.now()))
    assert [file.id for file in client.files.list()] == [kept]
    with pytest.raises(openai.NotFoundError):
        client.files.content(created.id)
    store = open_store(required(get_settings(), "storage_url"))
    assert store.exists(content_key(created.id))
    remove_expired_files(store)
    assert not store.exists(content_key(created.id))
    with transaction() as session:
        assert session.get(File, created.id) is None
    for seconds in (3599, 2592001):
        with pytest.raises(openai.BadRequestError) as refused:
            client.files.create(file=LINE, purpose="batch", expires_after={"anchor": "created_at", "seconds": seconds})
        assert refused.value.param == "expires_after[seconds]"


def test_a_name_that_is_too_long_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="a file's name has"):
        client.files.create(file=("a" * 256, LINE), purpose="fine-tune")


def test_an_unknown_purpose_names_the_field(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("a.jsonl", b"x"), purpose="holiday")  # type: ignore[arg-type]
    assert refused.value.param == "purpose"
