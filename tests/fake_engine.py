"""An HTTP server of an engine's shape that answers what it is told to and remembers what it was asked."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from manyicl_core.embedded import free_port
from tests.services import serving

USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


def refusal(status: int, message: str, code: Any, headers: dict[str, str] | None = None) -> JSONResponse:
    error = {"message": message, "type": "an_error", "param": None, "code": code}
    return JSONResponse({"error": error}, status, headers)


@dataclass
class FakeEngine:
    """``answers`` are given one after the other, the last one again and again.

    As a vLLM server it knows its base model and what is registered. It may hold an answer, or a
    stream after its first chunk, until the client leaves.
    """

    owned_by: str = "manyicl"
    base: str = "a/base"
    answers: list[Response | dict[str, Any]] = field(default_factory=list)
    health: int = 200
    names_itself: bool = True
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    registered: dict[str, str] = field(default_factory=dict)
    hold: bool = False
    hold_stream: bool = False
    holding: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)

    def bodies(self, path: str = "/v1/completions") -> list[dict[str, Any]]:
        return [body for asked, body in self.asked if asked == path]

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/health")
        async def health() -> Response:
            return Response(status_code=self.health)

        @app.get("/v1/models")
        async def models() -> Any:
            if not self.names_itself:
                return refusal(500, "not now", None)
            names = [self.base, *self.registered]
            return {"data": [{"id": name, "owned_by": self.owned_by} for name in names]}

        @app.post("/v1/load_lora_adapter")
        async def load(body: dict[str, Any]) -> Response:
            self.asked.append(("/v1/load_lora_adapter", body))
            if body["lora_name"] in self.registered:
                return refusal(400, "already loaded", 400)
            self.registered[body["lora_name"]] = body["lora_path"]
            return PlainTextResponse("Success")

        @app.post("/v1/unload_lora_adapter")
        async def unload(body: dict[str, Any]) -> Response:
            self.asked.append(("/v1/unload_lora_adapter", body))
            if self.registered.pop(body["lora_name"], None) is None:
                return refusal(404, "not found", 404)
            return PlainTextResponse("Success")

        @app.post("/v1/{path:path}")
        async def answer(request: Request, path: str) -> Any:
            body = await request.json()
            self.asked.append((f"/v1/{path}", body))
            if self.owned_by == "vllm" and body["model"] not in {self.base, *self.registered}:
                return refusal(404, "The model does not exist.", 404)
            if self.hold:
                self.holding.set()
                while not await request.is_disconnected():
                    await asyncio.sleep(0.01)
                self.left.set()
            number = min(len(self.asked), len(self.answers)) - 1
            content = self.answers[number] if self.answers else completion("x")
            if body.get("stream") and isinstance(content, dict):
                return StreamingResponse(self._events(content), media_type="text/event-stream")
            return content

        return app

    async def _events(self, content: dict[str, Any]) -> AsyncIterator[str]:
        written = 0
        for choice in content["choices"]:
            written += len(choice.get("text", "").split())
            so_far = {**content["usage"], "completion_tokens": written}
            yield f"data: {json.dumps({'choices': [choice], 'usage': so_far})}\n\n"
            if self.hold_stream:
                self.holding.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    self.left.set()
        yield f"data: {json.dumps({'choices': [], 'usage': content['usage']})}\n\n"
        yield "data: [DONE]\n\n"


def completion(*texts: str, **choice: Any) -> dict[str, Any]:
    """A whole completion; streamed, each text is a chunk with a token a word."""
    choices = [
        {"index": index, "text": text, "finish_reason": "stop", "logprobs": None, **choice}
        for index, text in enumerate(texts)
    ]
    return {"choices": choices, "usage": USAGE}


@contextmanager
def running(engine: FakeEngine) -> Iterator[str]:
    """Serve it; gives its URL."""
    port = free_port()
    with serving(engine.app(), port):
        yield f"http://127.0.0.1:{port}"
