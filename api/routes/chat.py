"""Chat completions: plain, or as a query of a task behind its demonstrations."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from api.dependencies import ArtifactsDep, EngineDep, InferenceDep
from api.disconnect import unless_gone
from manyicl_core.answers.chat_answer import answer_chat
from manyicl_core.answers.chat_call import chat_call
from manyicl_core.answers.chat_request import CreateChatCompletion
from manyicl_core.answers.chat_stream import stream_chat
from manyicl_core.errors import UserError, envelope

router = APIRouter(prefix="/chat/completions", tags=["chat"])


@router.post("")
async def create_chat_completion(
    request: Request, caller: InferenceDep, artifacts: ArtifactsDep, engine: EngineDep, body: CreateChatCompletion
) -> Any:
    """Answer a chat, or the query of a task."""
    call = await run_in_threadpool(chat_call, caller.project_id, artifacts, body)
    if not body.stream:
        return await unless_gone(request, answer_chat(engine, call, body))
    chunks = stream_chat(engine, call, body)
    # The first chunk is fetched here, so that a refusal still has its status.
    first = await unless_gone(request, anext(chunks))
    return StreamingResponse(_events(first, chunks), media_type="text/event-stream")


async def _events(first: dict[str, Any], rest: AsyncGenerator[dict[str, Any], None]) -> AsyncIterator[str]:
    """The chunks as server-sent events, up to ``[DONE]``."""
    try:
        yield _event(first)
        async with aclosing(rest):
            async for chunk in rest:
                yield _event(chunk)
    except UserError as error:
        yield _event(envelope(error.message, error.type, error.param, error.code))
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
