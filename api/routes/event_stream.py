"""Server-sent events that follow a story until it ends."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi.sse import EventSourceResponse, format_sse_event

from api.event_feed import Chunk, EventFeed, Reader

_EVENT = {"type": "object", "properties": {name: {"type": "string"} for name in ("data", "event", "id")}}

STREAMED_RESPONSES: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": _EVENT}}}}
"""What a route that may answer with server-sent events says in the OpenAPI document, of each of them."""


_SILENCE_SECONDS = 15.0


def event_stream(feed: EventFeed, subject_id: str, after: int) -> EventSourceResponse:
    """Each event as one message with its id, so that a client that comes back goes on behind it.

    The last message is ``event: done``. A comment now and then keeps proxies from hanging up.

    Args:
        feed: of the stories of this kind.
        subject_id: the job or evaluation whose story it is.
        after: the number of the last event that the client has, or 0.
    """
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return EventSourceResponse(_messages(feed, subject_id, after), headers=headers)


async def _messages(feed: EventFeed, subject_id: str, after: int) -> AsyncIterator[bytes]:
    reader = Reader(after)
    async for chunk in feed.missed(subject_id, reader):
        yield _sent(chunk)
        if chunk.over:
            return
    with feed.following(subject_id, reader):
        # Who does not read any more is let go of, and may come back.
        while not reader.cut:
            try:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    chunk = await reader.waiting.get()
            except TimeoutError:
                yield format_sse_event(comment="still here")
                continue
            yield _sent(chunk)
            if chunk.over:
                return


def _sent(chunk: Chunk) -> bytes:
    return chunk.messages + format_sse_event(data_str="{}", event="done") if chunk.over else chunk.messages
