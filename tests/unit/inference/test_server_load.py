"""Full queues, requests of many prompts, and clients that leave."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.server import create_app
from manyicl_core.inference.vocabulary import Vocabulary
from tests.unit.inference.driving import Driven, counted

BASE = "somebody/tiny-llama"
PROMPT = list(range(40, 75))
COMPLETION: dict[str, Any] = {"model": BASE, "prompt": PROMPT, "max_tokens": 4}
ENDLESS = {**COMPLETION, "max_tokens": 1900, "prefix_tokens": 30, "ignore_eos": True}
SCORES: dict[str, Any] = {"model": BASE, "prompts": [PROMPT], "labels": [[5, 6], [7]]}


@pytest.fixture
def engine(model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path) -> Driven:
    return Driven(model, vocabulary, tmp_path, rows=1)


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue_says_so_and_when_to_come_back(engine: Driven, vocabulary: Vocabulary, stream: bool):
    with TestClient(create_app(engine.engine, vocabulary, BASE, max_waiting=0)) as client:
        for path, body in (("/v1/completions", {**COMPLETION, "stream": stream}), ("/v1/label_scores", SCORES)):
            response = client.post(path, json=body)
            assert response.status_code == 429
            assert response.json()["error"]["code"] == "engine_overloaded"
            assert int(response.headers["retry-after-ms"]) >= 100
        assert client.get("/health").status_code == 200


def test_a_request_of_more_prompts_than_may_wait_is_answered(engine: Driven, vocabulary: Vocabulary):
    """A body is taken or refused as a whole: refused in part, it would never be answered."""
    with TestClient(create_app(engine.engine, vocabulary, BASE, max_waiting=2)) as client:
        answer = client.post("/v1/completions", json={**COMPLETION, "prompt": [PROMPT[: 5 + n] for n in range(12)]})
        assert answer.status_code == 200 and len(answer.json()["choices"]) == 12
        scores = client.post("/v1/label_scores", json={**SCORES, "prompts": [PROMPT[: 5 + n] for n in range(12)]})
        assert scores.status_code == 200 and len(scores.json()["scores"]) == 12


def test_when_one_prompt_is_refused_the_others_are_not_written(
    model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path
):
    """The second prompt's context is too large; the first would take long."""
    engine = Driven(model, vocabulary, tmp_path, budget_bytes=40 * model.bytes_a_token, rows=1)
    with TestClient(create_app(engine.engine, vocabulary, BASE)) as client:
        before = counted("decoded")
        body = {**ENDLESS, "prompt": [PROMPT, [9] * 60], "prefix_tokens": 50}
        assert client.post("/v1/completions", json=body).json()["error"]["code"] == "context_too_large"
        assert client.post("/v1/completions", json=COMPLETION).status_code == 200
        assert counted("decoded") < before + 1900


class Connection:
    """One HTTP request to the application, whose client may leave."""

    def __init__(self, app: FastAPI, path: str, body: dict[str, Any]) -> None:
        self.left = asyncio.Event()
        self.sent: list[dict[str, Any]] = []
        self._body: bytes | None = json.dumps(body).encode()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self.done = asyncio.create_task(app(scope, self._receive, self._send))  # type: ignore[arg-type]

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", ENDLESS),
        ("/v1/completions", {**ENDLESS, "stream": True}),
        ("/v1/completions", {**ENDLESS, "prompt": [PROMPT, PROMPT[:-1], PROMPT[:-2]]}),
    ],
    ids=["whole", "streamed", "three prompts"],
)
def test_the_row_of_a_client_that_leaves_is_free_at_once(
    engine: Driven, vocabulary: Vocabulary, path: str, body: dict[str, Any]
):
    app = create_app(engine.engine, vocabulary, BASE)

    async def leave_and_ask() -> None:
        async with app.router.lifespan_context(app):
            before = counted("decoded")
            endless = Connection(app, path, body)
            await until(lambda: counted("decoded") > before + 50)
            endless.left.set()
            await endless.done
            short = Connection(app, "/v1/completions", COMPLETION)
            await short.done
            assert short.sent[0]["status"] == 200
            assert counted("decoded") < before + 1900, "not because the other was done"

    asyncio.run(asyncio.wait_for(leave_and_ask(), 60))
