"""Completions of raw prompts, as texts or token ids, or of queries behind demonstrations."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from api.dependencies import ArtifactsDep, InferenceDep
from api.disconnect import unless_gone
from api.metered_engine import MeteredEngineDep
from api.routes.event_stream import STREAMED_RESPONSES
from api.routes.streamed import streamed
from manyicl_core.answers.completion_answer import answer_completion, stream_completion
from manyicl_core.answers.completion_call import completion_call
from manyicl_core.answers.completion_request import CreateCompletion
from manyicl_core.answers.objects import TextCompletion

router = APIRouter(prefix="/completions", tags=["completions"])


@router.post("", response_model=TextCompletion, responses=STREAMED_RESPONSES)
async def create_completion(
    request: Request, caller: InferenceDep, artifacts: ArtifactsDep, engine: MeteredEngineDep, body: CreateCompletion
) -> Any:
    """Go on from each prompt; with ``echo`` and ``logprobs``, tell how probable its own tokens are."""
    call = await run_in_threadpool(completion_call, caller.project_id, artifacts, body)
    if body.stream:
        return await streamed(request, stream_completion(engine, call, body))
    return await unless_gone(request, answer_completion(engine, call, body))
