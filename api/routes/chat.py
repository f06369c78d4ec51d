"""Chat completions: plain, or as a query of a task behind its demonstrations."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from api.dependencies import ArtifactsDep, InferenceDep
from api.disconnect import unless_gone
from api.metered_engine import MeteredEngineDep
from api.routes.event_stream import STREAMED_RESPONSES
from api.routes.streamed import streamed
from manyicl_core.answers.chat_answer import answer_chat
from manyicl_core.answers.chat_call import chat_call
from manyicl_core.answers.chat_request import CreateChatCompletion
from manyicl_core.answers.chat_stream import stream_chat
from manyicl_core.answers.objects import ChatCompletion

router = APIRouter(prefix="/chat/completions", tags=["chat"])


@router.post("", response_model=ChatCompletion, responses=STREAMED_RESPONSES)
async def create_chat_completion(
    request: Request,
    caller: InferenceDep,
    artifacts: ArtifactsDep,
    engine: MeteredEngineDep,
    body: CreateChatCompletion,
) -> Any:
    """Answer a chat, or the query of a task."""
    call = await run_in_threadpool(chat_call, caller.project_id, artifacts, body)
    if body.stream:
        return await streamed(request, stream_chat(engine, call, body))
    return await unless_gone(request, answer_chat(engine, call, body))
