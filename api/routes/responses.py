"""Responses, OpenAI's newer way to ask for a chat's answer: text in and out, and nothing is kept."""

from typing import Any, NoReturn

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from api.dependencies import ArtifactsDep, InferenceDep
from api.disconnect import unless_gone
from api.metered_engine import MeteredEngineDep
from api.routes.event_stream import STREAMED_RESPONSES
from api.routes.streamed import streamed
from manyicl_core.answers.chat_call import EngineCall, chat_call
from manyicl_core.answers.response_answer import ResponseStream, answer_response
from manyicl_core.answers.response_objects import ResponseObject
from manyicl_core.answers.response_request import CreateResponse
from manyicl_core.errors import NothingKept

router = APIRouter(prefix="/responses", tags=["chat"])


@router.post("", response_model=ResponseObject, responses=STREAMED_RESPONSES)
async def create_response(
    request: Request, caller: InferenceDep, artifacts: ArtifactsDep, engine: MeteredEngineDep, body: CreateResponse
) -> Any:
    """Answer a text or a conversation: a chat completion in the words of the Responses API."""
    chat = body.chat()

    def called() -> EngineCall:
        with body.naming_its_fields():
            return chat_call(caller.project_id, artifacts, chat)

    call = await run_in_threadpool(called)
    if body.stream:
        stream = ResponseStream(engine, call, body, chat)
        return await streamed(request, stream.events(), stream.failure, end="")
    return await unless_gone(request, answer_response(engine, call, body, chat))


@router.api_route("/{path:path}", methods=["GET", "POST", "DELETE"], include_in_schema=False, response_model=None)
def refuse_stored_response(path: str) -> NoReturn:
    """Tell whoever comes back for a response that there is none; nobody needs a key for that."""
    raise NothingKept(path)
