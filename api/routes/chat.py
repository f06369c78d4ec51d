"""Chat completions: plain, or as a query of a task behind its demonstrations."""

import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import ArtifactsDep, CallerDep, EngineDep
from api.errors import envelope
from api.routes.answer_text import AnswerText, PlainText
from manyicl_core.errors import InvalidRequest, UserError
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.contexts.schemas import ManyiclChat
from manyicl_core.store.contexts.service import ANSWER_ROOM, HostedPrompt, hosted_prompt
from manyicl_core.store.models.service import ServedModel, served_model
from manyicl_core.store.session import transaction

router = APIRouter(prefix="/chat/completions", tags=["chat"])

_DEFAULT_CHAT_TOKENS = 512


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Strict):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class Message(_Strict):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(_Strict):
    """OpenAI's ``stream_options``."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ResponseFormat(_Strict):
    """Free text is the only format here."""

    type: Literal["text"]


class CreateChatCompletion(_Strict):
    """The body of ``POST /v1/chat/completions``.

    Fields that would change the meaning of an answer and are not known here are refused; those
    that only serve OpenAI's own bookkeeping are accepted and ignored.
    """

    model: Annotated[str, Field(min_length=1, max_length=512)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    manyicl: ManyiclChat | None = None

    metadata: Any = None
    parallel_tool_calls: Any = None
    prompt_cache_key: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    user: Any = None

    def stops(self) -> list[str]:
        """The stop strings, empty ones left out."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in stops if text]

    def answer_tokens(self, default: int) -> int:
        """The most tokens of an answer."""
        return self.max_completion_tokens or self.max_tokens or default


@router.post("")
async def create_chat_completion(
    caller: CallerDep, artifacts: ArtifactsDep, engine: EngineDep, body: CreateChatCompletion
) -> Any:
    """Answer a chat, or the query of a task."""
    call = await run_in_threadpool(_engine_call, caller.project_id, artifacts, body)
    head = {"id": "chatcmpl-" + secrets.token_hex(12), "created": int(time.time()), "model": body.model}
    if body.stream:
        chunks = engine.stream(call.path, call.body)
        # The first chunk is fetched here, so that a refusal still has its status.
        first = await anext(chunks)
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        return StreamingResponse(_events(first, chunks, head, call, include_usage), media_type="text/event-stream")
    answer = await engine.complete(call.path, call.body)
    choice = answer["choices"][0]
    text = call.new_text()
    content = text.push(choice["text"] if "text" in choice else choice["message"]["content"]) + text.flush()
    message = {"role": "assistant", "content": content, "refusal": None}
    finished = {"index": 0, "message": message, "finish_reason": choice["finish_reason"], "logprobs": None}
    return {
        **head,
        "object": "chat.completion",
        "choices": [finished],
        "usage": answer["usage"],
        "manyicl": call.told(),
    }


class EngineCall(BaseModel):
    """A request to the engine; ``prompt`` is there when it stands behind demonstrations."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    path: str
    body: dict[str, Any]
    prompt: HostedPrompt | None = None

    def new_text(self) -> PlainText:
        """What turns the engine's text into the answer."""
        return PlainText() if self.prompt is None else AnswerText()

    def told(self) -> dict[str, int] | None:
        """The answer's ``manyicl`` object."""
        if self.prompt is None:
            return None
        return {"shots": self.prompt.shots, "context_tokens": self.prompt.context_tokens}


def _engine_call(project_id: str, artifacts: ArtifactStore, body: CreateChatCompletion) -> EngineCall:
    with transaction() as session:
        model = served_model(session, project_id, body.model)
    request: dict[str, Any] = {
        "model": model.weights_sha256 or model.base.id,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "seed": body.seed,
        "stop": body.stops(),
    }
    if body.manyicl is None:
        return _chat_call(body, request)
    return _query_call(artifacts, model, body, body.manyicl, request)


def _chat_call(body: CreateChatCompletion, request: dict[str, Any]) -> EngineCall:
    request["messages"] = [
        {"role": "system" if message.role == "developer" else message.role, "content": message.text()}
        for message in body.messages
    ]
    request["temperature"] = 1.0 if body.temperature is None else body.temperature
    request["max_tokens"] = body.answer_tokens(_DEFAULT_CHAT_TOKENS)
    return EngineCall(path="/v1/chat/completions", body=request)


def _query_call(
    artifacts: ArtifactStore,
    model: ServedModel,
    body: CreateChatCompletion,
    manyicl: ManyiclChat,
    request: dict[str, Any],
) -> EngineCall:
    if [message.role for message in body.messages] != ["user"]:
        raise InvalidRequest(
            "with manyicl, messages holds one user message, the query; the instruction and the demonstrations "
            "belong to the task or context",
            "messages",
        )
    query = body.messages[0].text()
    if not query.strip():
        raise InvalidRequest("messages.0.content: the query is empty; give it some text", "messages.0.content")
    prompt = hosted_prompt(artifacts, model, manyicl, query)
    request |= {
        "prompt": list(prompt.tokens),
        "prefix_tokens": prompt.context_tokens,
        "stop_token_ids": [prompt.stop_token],
        # A task has one right answer: greedy unless the client asks otherwise.
        "temperature": 0.0 if body.temperature is None else body.temperature,
        "max_tokens": body.answer_tokens(ANSWER_ROOM),
    }
    if prompt.choices is not None:
        # A label is never cut short: it ends by itself, whatever stop or max_tokens say.
        request |= {"structured_outputs": {"choice": prompt.choices}, "stop": [], "max_tokens": ANSWER_ROOM}
    return EngineCall(path="/v1/completions", body=request, prompt=prompt)


async def _events(
    first: dict[str, Any],
    rest: AsyncIterator[dict[str, Any]],
    head: dict[str, Any],
    call: EngineCall,
    include_usage: bool,
) -> AsyncIterator[str]:
    """OpenAI's server-sent events out of the engine's chunks."""
    head = {**head, "object": "chat.completion.chunk", "manyicl": call.told()}
    text = call.new_text()

    def chunk(delta: dict[str, str], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return _event({**head, "choices": [choice], "usage": None})

    yield chunk({"role": "assistant", "content": ""})
    try:
        async for part in _chain(first, rest):
            if not part["choices"]:
                if include_usage:
                    yield _event({**head, "choices": [], "usage": part["usage"]})
                continue
            choice = part["choices"][0]
            piece = text.push(choice["text"] if "text" in choice else choice["delta"].get("content") or "")
            finish = choice["finish_reason"]
            if finish is not None:
                piece += text.flush()
            if piece:
                yield chunk({"content": piece})
            if finish is not None:
                yield chunk({}, finish)
    except UserError as error:
        yield _event(envelope(error.message, error.type, error.param, error.code))
    yield "data: [DONE]\n\n"


async def _chain(first: dict[str, Any], rest: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    yield first
    async for part in rest:
        yield part


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
