"""Batches of small chats, over the unmodified client."""

import json
from typing import Any

from openai import OpenAI
from openai.types import Batch

from tests.services import BASE_MODEL, wait_for

ENDPOINT = "/v1/chat/completions"


def request(custom_id: str, **changes: Any) -> dict[str, Any]:
    """A line: a short chat, greedy; ``changes`` are fields of its body."""
    body = {
        "model": BASE_MODEL,
        "messages": [{"role": "user", "content": f"Hello {custom_id}"}],
        "max_tokens": 3,
        "temperature": 0,
        **changes,
    }
    return {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}


def upload_requests(client: OpenAI, lines: list[dict[str, Any]]) -> str:
    """Upload lines as a batch's file; gives its id."""
    content = "\n".join(json.dumps(line) for line in lines).encode()
    return client.files.create(file=("requests.jsonl", content), purpose="batch").id


def create_batch(client: OpenAI, lines: list[dict[str, Any]], endpoint: Any = ENDPOINT, **fields: Any) -> Batch:
    """Upload lines and queue them."""
    return client.batches.create(
        input_file_id=upload_requests(client, lines), endpoint=endpoint, completion_window="24h", **fields
    )


def await_batch(client: OpenAI, batch_id: str, *states: str) -> Batch:
    """Wait until the batch is in one of ``states``."""
    latest: list[Batch] = []

    def reached() -> bool:
        latest[:] = [client.batches.retrieve(batch_id)]
        return latest[0].status in states

    wait_for(reached, f"batch {batch_id} to be {' or '.join(states)}")
    return latest[0]


def result_lines(client: OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    """A result file's lines by ``custom_id``, of which none comes twice."""
    if file_id is None:
        return {}
    lines = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    results = {line["custom_id"]: line for line in lines}
    assert len(results) == len(lines), "a line is doubled"
    return results
