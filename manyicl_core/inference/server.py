"""The engine over HTTP: ``/v1/completions``, ``/v1/chat/completions``, ``/v1/models``, ``/health``."""

import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from transformers import PreTrainedTokenizerBase

from manyicl_core.inference.adapters import DoesNotFit, UnknownAdapter
from manyicl_core.inference.decoding import Sampling
from manyicl_core.inference.engine import Delta, Engine, Generation
from manyicl_core.inference.engine_thread import EngineThread
from manyicl_core.inference.schemas import ChatRequest, CompletionRequest, usage

Kind = Literal["chat.completion", "text_completion"]

_CLIENT_CLOSED_REQUEST = 499


class RequestRefused(Exception):
    """The engine cannot answer this request."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def create_app(engine: Engine, tokenizer: PreTrainedTokenizerBase, base_model: str) -> FastAPI:
    """The HTTP application around one engine."""
    thread = EngineThread(engine)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        thread.close()

    app = FastAPI(title="ManyICL engine", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.exception_handler(RequestRefused)(_refused)
    app.exception_handler(UnknownAdapter)(_unknown_adapter)
    app.exception_handler(DoesNotFit)(_does_not_fit)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        entry = {"id": base_model, "object": "model", "owned_by": "manyicl", "max_model_len": engine.max_tokens}
        return {"object": "list", "data": [entry]}

    @app.post("/v1/completions")
    async def completions(request: Request, body: CompletionRequest) -> Response:
        generation = Generation(
            adapter=None if body.model == base_model else body.model,
            prompt=tuple(body.prompt),
            prefix_tokens=body.prefix_tokens,
            max_tokens=_room(body.max_tokens, len(body.prompt), engine.max_tokens),
            sampling=Sampling(body.temperature, body.top_p, body.seed),
            stop_texts=body.stop,
            stop_tokens=frozenset(body.stop_token_ids),
            choices=_choices(body, tokenizer),
        )
        return await _respond(request, body.stream, thread, generation, "text_completion", body.model)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request, body: ChatRequest) -> Response:
        messages = [message.model_dump() for message in body.messages]
        # Rendered first, then encoded: a template writes its special tokens out itself.
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert isinstance(text, str)
        prompt = tokenizer.encode(text, add_special_tokens=False)
        generation = Generation(
            adapter=None if body.model == base_model else body.model,
            prompt=tuple(prompt),
            prefix_tokens=0,
            max_tokens=_room(body.max_tokens, len(prompt), engine.max_tokens),
            sampling=Sampling(body.temperature, body.top_p, body.seed),
            stop_texts=body.stop,
            stop_tokens=frozenset({tokenizer.eos_token_id}),
            choices=None,
        )
        return await _respond(request, body.stream, thread, generation, "chat.completion", body.model)

    return app


def _room(max_tokens: int, prompt_tokens: int, longest: int) -> int:
    """How long the answer may get."""
    room = longest - prompt_tokens
    if room < 1:
        raise RequestRefused(
            400,
            f"the prompt has {prompt_tokens} tokens and the model reads at most {longest}; "
            "shorten it or lower max_shots",
            "context_length_exceeded",
        )
    return min(max_tokens, room)


def _choices(body: CompletionRequest, tokenizer: PreTrainedTokenizerBase) -> list[list[int]] | None:
    """The allowed answers as token ids, each with its stop token."""
    if body.structured_outputs is None:
        return None
    if not body.stop_token_ids:
        raise RequestRefused(400, "structured_outputs.choice needs stop_token_ids", "missing_stop")
    # As in training, a special token in a user's text is plain text.
    return [
        [*tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True), body.stop_token_ids[0]]
        for text in body.structured_outputs.choice
    ]


async def _respond(
    request: Request, stream: bool, thread: EngineThread, generation: Generation, kind: Kind, model: str
) -> Response:
    """The whole answer, or a stream of its pieces."""
    head = {"id": "gen-" + secrets.token_hex(12), "created": int(time.time()), "model": model}
    deltas = thread.deltas(generation)
    if stream:
        # The first delta is awaited here, so that a refusal still has its status.
        first = await anext(deltas)
        events = _events(first, deltas, head, len(generation.prompt), kind)
        return StreamingResponse(events, media_type="text/event-stream")
    text = ""
    last = Delta("", 0, 0)
    async with aclosing(deltas):
        async for last in deltas:
            text += last.text
            if await request.is_disconnected():
                return Response(status_code=_CLIENT_CLOSED_REQUEST)
    content = {"message": {"role": "assistant", "content": text}} if kind == "chat.completion" else {"text": text}
    choice = {"index": 0, "finish_reason": last.finish_reason, "logprobs": None, **content}
    totals = usage(len(generation.prompt), last.completion_tokens, last.cached_tokens)
    return JSONResponse({**head, "object": kind, "choices": [choice], "usage": totals})


async def _events(
    first: Delta, rest: AsyncGenerator[Delta, None], head: dict[str, Any], prompt_tokens: int, kind: Kind
) -> AsyncIterator[str]:
    """Server-sent events: a chunk a delta, then one with the usage, then ``[DONE]``."""
    name = "chat.completion.chunk" if kind == "chat.completion" else kind

    def chunk(delta: Delta) -> str:
        content = {"delta": {"content": delta.text}} if kind == "chat.completion" else {"text": delta.text}
        choice = {"index": 0, "finish_reason": delta.finish_reason, "logprobs": None, **content}
        return _event({**head, "object": name, "choices": [choice]})

    last = first
    async with aclosing(rest):
        yield chunk(first)
        async for last in rest:
            yield chunk(last)
    totals = usage(prompt_tokens, last.completion_tokens, last.cached_tokens)
    yield _event({**head, "object": name, "choices": [], "usage": totals})
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestRefused)
    return JSONResponse(error.body, error.status)


def _unknown_adapter(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse(RequestRefused(404, f"there are no weights {error}", "model_not_found").body, 404)


def _does_not_fit(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse(RequestRefused(503, str(error), "out_of_memory").body, 503)
