"""The engine over HTTP: ``/v1/completions``, ``/v1/chat/completions``, ``/v1/models``, ``/health``."""

import asyncio
import json
import secrets
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from transformers import PreTrainedTokenizerBase

from manyicl_core.inference.adapters import UnknownAdapter
from manyicl_core.inference.decoding import Sampling
from manyicl_core.inference.engine import Delta, Engine, Generation
from manyicl_core.inference.schemas import ChatRequest, CompletionRequest, usage

_log = structlog.get_logger(__name__)


class RequestRefused(Exception):
    """The engine cannot answer this request."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {"message": message, "type": "invalid_request_error", "param": None, "code": code},
        }


def create_app(engine: Engine, tokenizer: PreTrainedTokenizerBase, base_model: str) -> FastAPI:
    """The HTTP application around one engine; one thread computes."""
    computing = ThreadPoolExecutor(1, thread_name_prefix="engine")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        computing.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(title="ManyICL engine", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(RequestRefused)
    async def refused(_: Request, error: RequestRefused) -> JSONResponse:
        return JSONResponse(error.body, error.status)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        entry = {"id": base_model, "object": "model", "owned_by": "manyicl", "max_model_len": engine.max_tokens}
        return {"object": "list", "data": [entry]}

    @app.post("/v1/completions")
    async def completions(request: Request, body: CompletionRequest) -> Any:
        choices = None
        if body.structured_outputs is not None:
            if not body.stop_token_ids:
                raise RequestRefused(400, "structured_outputs.choice needs stop_token_ids", "missing_stop")
            choices = [
                [*tokenizer.encode(text, add_special_tokens=False), body.stop_token_ids[0]]
                for text in body.structured_outputs.choice
            ]
        generation = _generation(body, tuple(body.prompt), body.prefix_tokens, frozenset(body.stop_token_ids), choices)
        return await _respond(request, body.stream, generation, "text_completion", "cmpl-")

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request, body: ChatRequest) -> Any:
        messages = [message.model_dump() for message in body.messages]
        prompt = tokenizer.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        stop = frozenset({tokenizer.eos_token_id})
        return await _respond(request, body.stream, _generation(body, tuple(prompt), 0, stop, None), "chat", "chatcmpl-")

    def _generation(
        body: CompletionRequest | ChatRequest,
        prompt: tuple[int, ...],
        prefix_tokens: int,
        stop: frozenset[int],
        choices: list[list[int]] | None,
    ) -> Generation:
        room = engine.max_tokens - len(prompt)
        if room < 1:
            raise RequestRefused(
                400,
                f"the prompt has {len(prompt)} tokens and the model reads at most {engine.max_tokens}; "
                "shorten it or lower max_shots",
                "context_length_exceeded",
            )
        return Generation(
            adapter=None if body.model == base_model else body.model,
            prompt=prompt,
            prefix_tokens=prefix_tokens,
            max_tokens=min(body.max_tokens, room),
            sampling=Sampling(body.temperature, body.top_p, body.seed),
            stop_texts=body.stop,
            stop_tokens=stop,
            choices=choices,
        )

    async def _deltas(generation: Generation) -> AsyncIterator[Delta]:
        """The engine's deltas, brought from its thread; leaving the loop stops the engine."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Delta | Exception | None] = asyncio.Queue()
        cancelled = threading.Event()

        def put(item: Delta | Exception | None) -> None:
            loop.call_soon_threadsafe(arrived.put_nowait, item)

        def compute() -> None:
            if cancelled.is_set():
                return
            try:
                for delta in engine.generate(generation, cancelled):
                    put(delta)
                put(None)
            except Exception as error:  # a fault of one request must not end the thread
                put(error)

        computing.submit(compute)
        try:
            while (item := await arrived.get()) is not None:
                if isinstance(item, UnknownAdapter):
                    raise RequestRefused(404, f"there is no adapter {item}", "model_not_found")
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            cancelled.set()

    async def _respond(request: Request, stream: bool, generation: Generation, kind: str, prefix: str) -> Any:
        head = {"id": prefix + secrets.token_hex(12), "created": int(time.time()), "model": generation.adapter or base_model}
        if stream:
            events = _events(_deltas(generation), head, len(generation.prompt), kind)
            # The first event is made here, so that a refusal still has its status.
            first = await anext(events)
            return StreamingResponse(_joined(first, events), media_type="text/event-stream")
        text = ""
        last = Delta("", 0, 0)
        async with aclosing(_deltas(generation)) as deltas:
            async for last in deltas:
                text += last.text
                if await request.is_disconnected():
                    return JSONResponse({}, 499)
        content = {"message": {"role": "assistant", "content": text}} if kind == "chat" else {"text": text}
        choice = {"index": 0, "finish_reason": last.finish_reason, "logprobs": None, **content}
        totals = usage(len(generation.prompt), last.completion_tokens, last.cached_tokens)
        name = "chat.completion" if kind == "chat" else kind
        return {**head, "object": name, "choices": [choice], "usage": totals}

    return app


async def _joined(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for event in rest:
        yield event


async def _events(deltas: AsyncIterator[Delta], head: dict[str, Any], prompt_tokens: int, kind: str) -> AsyncIterator[str]:
    """Server-sent events: a chunk a delta, then one with the usage, then ``[DONE]``."""
    name = "chat.completion.chunk" if kind == "chat" else kind
    last = Delta("", 0, 0)
    async for last in deltas:
        content = {"delta": {"content": last.text}} if kind == "chat" else {"text": last.text}
        choice = {"index": 0, "finish_reason": last.finish_reason, "logprobs": None, **content}
        yield _event({**head, "object": name, "choices": [choice]})
    totals = usage(prompt_tokens, last.completion_tokens, last.cached_tokens)
    yield _event({**head, "object": name, "choices": [], "usage": totals})
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
