import json

import openai
import pytest
from openai import OpenAI

from tests.jobs import example_lines, upload


def chat_line(*messages: tuple[str, str], **last: object) -> bytes:
    """A chat line; ``last`` are further fields of its last message."""
    written: list[dict[str, object]] = [{"role": role, "content": content} for role, content in messages]
    written[-1] |= last
    return json.dumps({"messages": written}).encode()


def test_a_file_lives_from_upload_to_deletion(client: OpenAI) -> None:
    content = b'{"task": "t", "input": "a", "output": "b"}\n'
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


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"task": "t", "input": "a", "output": "b"}\n{oops\n', "line 2: invalid JSON"),
        (b'{"task": "t", "input": "a", "output": "  "}\n', "line 1: 'output' is empty"),
        (b'{"task": "t", "input": "a"}\n', "line 1: 'output' is missing"),
        (b"", "the file holds no example"),
        (b"\xff\xfe\n", "line 1: not UTF-8"),
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


def test_an_unknown_purpose_names_the_field(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("a.jsonl", b"x"), purpose="holiday")  # type: ignore[arg-type]
    assert refused.value.param == "purpose"
