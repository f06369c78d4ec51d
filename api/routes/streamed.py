"""Answers in chunks: server-sent events up to ``[DONE]``, as OpenAI streams them."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse

from api.disconnect import unless_gone
from api.errors import unexpected_envelope
from manyicl_core.errors import UserError, envelope


async def streamed(request: Request, chunks: AsyncGenerator[dict[str, Any], None]) -> StreamingResponse:
    """The chunks as they come; what goes wrong after the first one is an event too, which the client raises."""
    # The first chunk is fetched here, so that a refusal still has its status.
    first = await unless_gone(request, anext(chunks))
    return StreamingResponse(_events(first, chunks), media_type="text/event-stream")


async def _events(first: dict[str, Any], rest: AsyncGenerator[dict[str, Any], None]) -> AsyncIterator[str]:
    try:
        yield _event(first)
        async with aclosing(rest):
            async for chunk in rest:
                yield _event(chunk)
    except UserError as error:
        yield _event(envelope(error.message, error.type, error.param, error.code))
    except Exception as error:  # the status has gone: this is the only way to tell
        yield _event(unexpected_envelope(error))
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
