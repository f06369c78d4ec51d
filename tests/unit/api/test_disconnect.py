"""A client that leaves ends its request in the engine too."""

import socket
from typing import Any

import httpx2
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from api.disconnect import unless_gone
from api.errors import install_error_handlers
from manyicl_core.embedded import free_port
from manyicl_core.engines.client import EngineClient
from tests.fake_engine import FakeEngine, completion, running
from tests.services import serving

PATH = "/v1/completions"
BODY: dict[str, Any] = {"model": "a/base", "prompt": [1]}


def app_over(engine_url: str) -> FastAPI:
    app = FastAPI()
    install_error_handlers(app)
    engine = EngineClient(engine_url)

    @app.post("/whole")
    async def whole(request: Request, body: dict[str, Any]) -> Any:
        return await unless_gone(request, engine.complete(PATH, body))

    @app.post("/streamed")
    async def streamed(request: Request, body: dict[str, Any]) -> StreamingResponse:
        chunks = engine.stream(PATH, body)
        first = await unless_gone(request, anext(chunks))
        return StreamingResponse(iter([str(first)]))

    return app


def engine_sees_it(path: str) -> bool:
    """Whether the engine sees that the client hangs up, once the engine has its request."""
    engine = FakeEngine(hold=True)
    with running(engine) as engine_url:
        port = free_port()
        with serving(app_over(engine_url), port), socket.create_connection(("127.0.0.1", port)) as client:
            body = b'{"model": "a/base", "prompt": [1]}'
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            client.sendall(head.encode() + b"\r\n\r\n" + body)
            assert engine.holding.wait(10)
            client.close()
            return engine.left.wait(10)


def test_the_engine_sees_that_a_client_of_a_whole_answer_has_gone():
    assert engine_sees_it("/whole")


def test_the_engine_sees_that_a_client_has_gone_before_the_first_chunk():
    assert engine_sees_it("/streamed")


def test_an_answer_reaches_a_client_that_stays():
    with running(FakeEngine(answers=[completion("here")])) as engine_url:
        port = free_port()
        with serving(app_over(engine_url), port):
            answer = httpx2.post(f"http://127.0.0.1:{port}/whole", json=BODY).json()
    assert answer["choices"][0]["text"] == "here"
