"""Server-sent events as a client reads them."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2


def follow(url: str, key: str, after: str | None = None) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    """Server-sent events as (event, id, data), until the server ends them."""
    headers = {"authorization": f"Bearer {key}"} | ({} if after is None else {"last-event-id": after})
    with httpx2.stream("GET", url, headers=headers, timeout=600) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif "data" in fields:
                yield fields.get("event", "message"), fields.get("id"), json.loads(fields["data"])
                fields = {}
