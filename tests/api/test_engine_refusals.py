"""Both ends of the api at once: what its client does reaches the engine, what the engine says reaches the client."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from fastapi import Response
from openai import OpenAI

from api.app import create_app
from manyicl_core.embedded import free_port
from manyicl_core.engines.client import EngineClient
from tests.fake_engine import FakeEngine, completion, refusal, running
from tests.services import BASE_MODEL, serving

MESSAGES: Any = [{"role": "user", "content": "Hello"}]
CONTEXT = {"labels": ["red", "blue"], "examples": [{"input": "a", "output": "red"}]}
CHUNK = {"choices": [{"index": 0, "text": "a", "finish_reason": None}], "usage": {}}

Over = Callable[[FakeEngine], str]


@pytest.fixture
def api_over(installation: str) -> Iterator[Over]:
    """Starts an api whose engine is a given one; gives its base URL."""
    app = create_app()
    port = free_port()
    with ExitStack() as stack:
        stack.enter_context(serving(app, port))

        def over(engine: FakeEngine) -> str:
            app.state.engine = EngineClient(stack.enter_context(running(engine)))
            return f"http://127.0.0.1:{port}/v1"

        yield over


@pytest.mark.parametrize(
    ("path", "body", "engine"),
    [
        ("chat/completions", {"messages": MESSAGES}, FakeEngine(hold=True)),
        ("chat/completions", {"messages": MESSAGES, "stream": True}, FakeEngine(hold=True)),
        ("chat/completions", {"messages": MESSAGES, "stream": True}, FakeEngine(answers=[CHUNK], hold_stream=True)),
        ("completions", {"prompt": "a"}, FakeEngine(hold=True)),
        ("classifications", {"input": ["a"], "manyicl": {"context": CONTEXT}}, FakeEngine(hold=True)),
    ],
    ids=["whole", "before the first chunk", "within a stream", "completion", "classification"],
)
def test_the_engine_sees_that_a_client_has_left(
    api_over: Over, api_key: str, path: str, body: dict[str, Any], engine: FakeEngine
) -> None:
    url = urlsplit(api_over(engine))
    content = json.dumps({"model": BASE_MODEL, **body}).encode()
    head = f"POST {url.path}/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api_key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection((url.hostname, url.port)) as client:
        client.sendall(head.encode() + content)
        assert engine.holding.wait(20)
        assert not engine.left.is_set()
    assert engine.left.wait(20)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "context_length_exceeded", openai.BadRequestError),
        (429, "engine_overloaded", openai.RateLimitError),
        (503, "out_of_memory", openai.InternalServerError),
        (504, "deadline_exceeded", openai.InternalServerError),
    ],
)
def test_what_the_engine_refuses_keeps_its_status_and_code(
    api_over: Over, api_key: str, status: int, code: str, kind: type[openai.APIStatusError], stream: bool
) -> None:
    base_url = api_over(FakeEngine(answers=[refusal(status, "the reason", code, {"retry-after-ms": "70"})]))
    with OpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client, pytest.raises(kind) as refused:
        client.chat.completions.create(model=BASE_MODEL, messages=MESSAGES, stream=stream)
    assert (refused.value.status_code, refused.value.code) == (status, code)
    assert "the reason" in refused.value.message
    waits = {429: "70", 503: "2000"}
    assert refused.value.response.headers.get("retry-after-ms") == waits.get(status)


def test_a_client_that_waits_as_told_gets_its_answer(api_over: Over, api_key: str) -> None:
    full = refusal(429, "full", "engine_overloaded", {"retry-after-ms": "20"})
    answer = completion("here")
    engine = FakeEngine(answers=[full, answer])
    with OpenAI(base_url=api_over(engine), api_key=api_key, max_retries=1) as client:
        told = client.chat.completions.create(model=BASE_MODEL, messages=MESSAGES)
    assert told.choices[0].message.content == "here"
    assert len(engine.bodies()) == 2


def test_the_engine_need_not_go_on_when_the_client_says_it_waits_no_longer(api_over: Over, api_key: str) -> None:
    engine = FakeEngine(hold=True)
    with OpenAI(base_url=api_over(engine), api_key=api_key, max_retries=0) as client:
        headers = {"x-stainless-read-timeout": "0.3"}
        with pytest.raises(openai.InternalServerError, match=r"0\.3 seconds") as refused:
            client.chat.completions.create(model=BASE_MODEL, messages=MESSAGES, extra_headers=headers)
    assert (refused.value.status_code, refused.value.code) == (504, "deadline_exceeded")
    assert engine.left.wait(20)


def test_an_error_within_a_stream_is_raised_by_the_client(api_over: Over, api_key: str) -> None:
    late = {"message": "no memory", "type": "server_error", "param": None, "code": "out_of_memory"}
    choice = {"index": 0, "text": "a", "finish_reason": None}
    events = [f"data: {json.dumps(content)}\n\n" for content in ({"choices": [choice]}, {"error": late})]
    engine = FakeEngine(answers=[Response("".join(events), media_type="text/event-stream")])
    with OpenAI(base_url=api_over(engine), api_key=api_key, max_retries=0) as client:
        chat = client.chat.completions.create(model=BASE_MODEL, messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="no memory"):
            list(chat)
        completion = client.completions.create(model=BASE_MODEL, prompt="a", stream=True)
        with pytest.raises(openai.APIError, match="no memory"):
            list(completion)
