"""One engine or several: what they refuse, where requests go, and where they do not."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, TypeVar

import httpx2
import pytest

from manyicl_core.embedded import free_port
from manyicl_core.engines import client, connection
from manyicl_core.engines.client import EngineClient
from manyicl_core.engines.connection import Connection, NotReached, UnknownModel
from manyicl_core.errors import ENGINE_ERROR, DeadlineExceeded, InvalidRequest, Overloaded, Unavailable, UserError
from tests.fake_engine import FakeEngine, completion, refusal, running

Result = TypeVar("Result")

BODY = {"model": "a/base", "prompt": [1, 2, 3], "prefix_tokens": 2, "cache_salt": "s"}
PATH = "/v1/completions"


def asking(urls: str, ask: Callable[[EngineClient], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        client = EngineClient(urls)
        try:
            return await ask(client)
        finally:
            await client.close()

    return asyncio.run(run())


def answer(urls: str, body: dict[str, Any] = BODY) -> dict[str, Any]:
    return asking(urls, lambda client: client.complete(PATH, body))


@pytest.mark.parametrize(
    ("status", "code", "kind", "told"),
    [
        (400, "context_length_exceeded", InvalidRequest, "context_length_exceeded"),
        (404, "model_not_found", UnknownModel, "model_not_found"),
        (503, "out_of_memory", Unavailable, "out_of_memory"),
        (504, "deadline_exceeded", DeadlineExceeded, "deadline_exceeded"),
        (400, 400, InvalidRequest, None),
        (503, 503, Unavailable, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_keeps_its_message_status_and_code(
    status: int, code: Any, kind: type[UserError], told: str | None, stream: bool
):
    async def ask(client: EngineClient) -> object:
        if stream:
            return [chunk async for chunk in client.stream(PATH, BODY)]
        return await client.complete(PATH, BODY)

    with running(FakeEngine(answers=[refusal(status, "the reason", code)])) as url, pytest.raises(kind) as refused:
        asking(url, ask)
    assert (refused.value.message, refused.value.code, refused.value.status) == ("the reason", told, status)


def test_a_full_queue_says_when_to_come_back():
    full = refusal(429, "full", "engine_overloaded", {"retry-after-ms": "730"})
    with running(FakeEngine(answers=[full])) as url, pytest.raises(Overloaded) as refused:
        answer(url)
    assert refused.value.retry_after_ms == 730


def test_an_engine_that_is_not_there_is_unavailable():
    with pytest.raises(Unavailable, match="does not answer"):
        answer(f"http://127.0.0.1:{free_port()}")


def test_a_failure_of_which_a_server_says_no_more_is_the_engines():
    with running(FakeEngine(answers=[refusal(500, "the reason", 500)])) as url, pytest.raises(Unavailable) as failed:
        answer(url)
    assert (failed.value.message, failed.value.code) == ("the reason", ENGINE_ERROR)


def test_an_engine_that_dies_of_a_request_has_failed_at_it():
    """Whoever has patience must not have it die of that again and again."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def ask() -> None:
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        connection = Connection(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        try:
            await connection.post(PATH, BODY)
        finally:
            await connection.close()
            server.close()

    with pytest.raises(Unavailable) as died:
        asyncio.run(ask())
    assert died.value.code == ENGINE_ERROR and not isinstance(died.value, NotReached)


def test_many_requests_wait_for_one_look_at_what_a_server_is(monkeypatch: pytest.MonkeyPatch):
    looks = 0

    async def hang(_: Connection) -> list[dict[str, Any]]:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.1)
        raise NotReached("not there")

    monkeypatch.setattr(Connection, "models", hang)

    async def ask(client: EngineClient) -> list[object]:
        return await asyncio.gather(*(client.complete(PATH, BODY) for _ in range(20)), return_exceptions=True)

    with running(FakeEngine()) as url:
        assert all(isinstance(error, NotReached) for error in asking(url, ask))
    assert looks == 1


def test_one_context_goes_to_one_engine_and_contexts_spread():
    engines = [FakeEngine(), FakeEngine(), FakeEngine()]
    with ExitStack() as stack:
        urls = ",".join(stack.enter_context(running(engine)) for engine in engines)

        async def ask(client: EngineClient) -> None:
            for context in range(40):
                for query in range(3):
                    await client.complete(PATH, {**BODY, "prompt": [context, context, query]})

        asking(urls, ask)
    for context in range(40):
        asked = [sum(body["prompt"][0] == context for body in engine.bodies()) for engine in engines]
        assert sorted(asked) == [0, 0, 3]
    assert all(engine.bodies() for engine in engines)


def test_requests_pass_by_engines_that_are_away_full_or_draining():
    well = FakeEngine(answers=[completion("well")])
    full = FakeEngine(answers=[refusal(429, "full", None)])
    draining = FakeEngine(health=503)
    nameless = FakeEngine(names_itself=False)
    with running(well) as a, running(full) as b, running(draining) as c, running(nameless) as d:
        urls = ",".join([a, b, c, d, f"http://127.0.0.1:{free_port()}"])

        async def ask(client: EngineClient) -> list[str]:
            bodies = [{**BODY, "prompt": [n, n, n]} for n in range(12)]
            answers = [await client.complete(PATH, body) for body in bodies]
            streams = [[chunk async for chunk in client.stream(PATH, body)] for body in bodies]
            texts = [answer["choices"][0]["text"] for answer in answers]
            return texts + [chunks[0]["choices"][0]["text"] for chunks in streams]

        assert asking(urls, ask) == ["well"] * 24
    assert full.bodies()
    assert not draining.bodies()
    assert not nameless.bodies()


def test_when_all_engines_drain_requests_are_refused():
    draining = FakeEngine(health=503)
    with running(draining) as url, pytest.raises(Unavailable, match="takes requests"):
        answer(url)


def test_a_draining_engine_finishes_what_it_has():
    engine = FakeEngine(hold=True)

    async def ask(client: EngineClient) -> None:
        running_request = asyncio.create_task(client.complete(PATH, BODY))
        await asyncio.to_thread(engine.holding.wait)
        engine.health = 503
        assert not await client.healthy()
        assert not running_request.done()
        running_request.cancel()

    with running(engine) as url:
        asking(url, ask)
        assert engine.left.wait(10)


@pytest.mark.parametrize("owned_by", ["manyicl", "vllm"])
def test_bulk_is_waited_for_without_end(monkeypatch: pytest.MonkeyPatch, owned_by: str):
    monkeypatch.setattr(connection, "_TIMEOUT", httpx2.Timeout(0.1))
    engine = FakeEngine(owned_by, hold=True)

    async def ask(client: EngineClient) -> None:
        bulk = asyncio.create_task(client.complete(PATH, {**BODY, "priority": 1}))
        await asyncio.to_thread(engine.holding.wait)
        with pytest.raises(Unavailable) as late:
            await client.complete(PATH, BODY)
        assert late.value.code == ENGINE_ERROR
        assert not bulk.done(), "it has waited for longer"
        bulk.cancel()

    with running(engine) as url:
        asking(url, ask)


def test_a_connection_asks_now_and_then_whether_the_other_host_is_there():
    async def keepalive(url: str) -> int:
        connection = Connection(url)
        async with connection._http.stream("GET", "/health") as response:
            kept = response.extensions["network_stream"].get_extra_info("socket")
            option = kept.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await connection.close()
        return int(option)

    with running(FakeEngine()) as url:
        assert asyncio.run(keepalive(url)) == 1


def test_a_prefix_is_forgotten_when_no_engine_may_have_it_any_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client, "_FORGET_SECONDS", 0.2)
    body = {"model": "a/base", "tokens": [1, 2], "ends": [], "cache_salt": "s"}

    def forgotten(*urls: str) -> bool:
        return asking(",".join(urls), lambda engines: engines.forget(body))

    hangs, refuses, well = FakeEngine(hold=True), FakeEngine(answers=[refusal(400, "no", None)]), FakeEngine()
    with running(hangs) as a, running(refuses) as b, running(well) as c:
        away = f"http://127.0.0.1:{free_port()}"
        assert forgotten(b, c), "one that refuses does so for ever"
        assert not forgotten(away, c)
        assert not forgotten(a, c)
    assert well.bodies("/v1/prefixes/forget") == [body] * 3
