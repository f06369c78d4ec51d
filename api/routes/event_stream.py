"""Server-sent events that follow a story until it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import BaseModel

_POLL_SECONDS = 0.3
_SILENCE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class News:
    """What was new at one look: events with their ids, oldest first, and whether all is told."""

    events: Sequence[tuple[str, BaseModel]]
    over: bool


def event_stream(look: Callable[[str | None], News], after: str | None) -> EventSourceResponse:
    """Each event as one message with its id, so that a client that comes back goes on behind it.

    The last message is ``event: done``. A comment now and then keeps proxies from hanging up.

    Args:
        look: gives the events after an event's id (None: all), in a transaction of its own.
        after: the id of the last event that the client has.
    """
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return EventSourceResponse(_messages(look, after), headers=headers)


async def _messages(look: Callable[[str | None], News], after: str | None) -> AsyncIterator[bytes]:
    last = after
    silent = 0.0
    while True:
        news = await run_in_threadpool(look, last)
        for last, event in news.events:
            yield format_sse_event(data_str=event.model_dump_json(), id=last)
        if news.over:
            yield format_sse_event(data_str="{}", event="done")
            return
        silent = 0.0 if news.events else silent + _POLL_SECONDS
        if silent >= _SILENCE_SECONDS:
            silent = 0.0
            yield format_sse_event(comment="still here")
        await asyncio.sleep(_POLL_SECONDS)
