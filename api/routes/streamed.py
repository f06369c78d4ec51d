"""Answers in pieces, as server-sent events, as OpenAI streams them."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse

from api.disconnect import unless_gone
from api.errors import unexpected_envelope
from manyicl_core.errors import UserError, envelope

_CHUNKS_END = "data: [DONE]\n\n"

Failure = Callable[[dict[str, Any]], list[dict[str, Any]]]
"""What is sent last when the answer fails on its way, out of the envelope of the error."""


async def streamed(
    request: Request,
    pieces: AsyncGenerator[dict[str, Any], None],
    failure: Failure = lambda error: [error],
    end: str = _CHUNKS_END,
) -> StreamingResponse:
    """The pieces as they come; what goes wrong after the first one is an event too, which the client raises.

    One with a ``type`` is an event of that name.
    """
    # The first piece is fetched here, so that a refusal still has its status.
    first = await unless_gone(request, anext(pieces))
    return StreamingResponse(_events(first, pieces, failure, end), media_type="text/event-stream")


async def _events(
    first: dict[str, Any], rest: AsyncGenerator[dict[str, Any], None], failure: Failure, end: str
) -> AsyncIterator[str]:
    last: list[dict[str, Any]] = []
    try:
        yield _event(first)
        async with aclosing(rest):
            async for piece in rest:
                yield _event(piece)
    except UserError as error:
        last = failure(envelope(error.message, error.type, error.param, error.code))
    except Exception as error:  # the status has gone: this is the only way to tell
        last = failure(unexpected_envelope(error))
    for piece in last:
        yield _event(piece)
    yield end


def _event(content: dict[str, Any]) -> str:
    name = f"event: {content['type']}\n" if "type" in content else ""
    return f"{name}data: {json.dumps(content)}\n\n"
