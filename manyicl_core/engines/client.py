"""Ask the engines of this installation: ours, or vLLM servers, at one or several URLs."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

import structlog

from manyicl_core.engines.connection import Connection, Health, NotReached
from manyicl_core.engines.routing import ranked, routing_key
from manyicl_core.engines.server import EngineServer, OwnServer
from manyicl_core.engines.vllm import VllmServer
from manyicl_core.engines.vllm_adapters import AdapterFolder, NotServed, Registrations
from manyicl_core.errors import Overloaded, Unavailable, UserError
from manyicl_core.objects import ArtifactStore
from manyicl_core.settings import Settings, required

_log = structlog.get_logger(__name__)

_HEALTH_SECONDS = 5.0
_FORGET_SECONDS = 5.0
"""It is only noted: an engine that takes longer does not work, and whoever deletes a context waits."""


_PASSED_BY = (NotReached, Overloaded, NotServed)
"""An engine that says so has begun nothing: the next one is asked."""


class CompletionEngine(Protocol):
    """What gives completions: the pool of engines, or somebody who counts what it gives, or waits for it."""

    async def complete(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One whole answer."""
        ...


class StreamingEngine(CompletionEngine, Protocol):
    """What gives them streamed too."""

    def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a streamed answer."""
        ...


class Member:
    """One engine of the pool, with how it was when last asked."""

    def __init__(self, url: str, adapters: AdapterFolder | None) -> None:
        self.connection = Connection(url)
        self.health: Health = "silent"
        self._adapters = adapters
        self._server: EngineServer | None = None
        self._recognising: asyncio.Task[EngineServer] | None = None
        self._looked_at = float("-inf")
        self._look: asyncio.Task[None] | None = None

    async def looked_after(self) -> None:
        """Know how the engine is: wait for the first look; later ones happen beside the requests."""
        old = time.monotonic() - self._looked_at > _HEALTH_SECONDS
        if old and (self._look is None or self._look.done()):
            self._look = asyncio.create_task(self._ask())
        if self._looked_at == float("-inf"):
            assert self._look is not None
            await asyncio.shield(self._look)

    async def server(self) -> EngineServer:
        """The engine behind the URL, recognised by what it says of its models.

        Raises:
            NotReached: it does not say.
        """
        if self._server is not None:
            return self._server
        if self._recognising is None or self._recognising.done():  # else they would wait for it one after the other
            self._recognising = asyncio.create_task(self._recognise())
        return await asyncio.shield(self._recognising)

    def lost(self) -> None:
        """No connection was made: something else may come back under this URL."""
        self.health = "silent"
        self._server = None

    async def close(self) -> None:
        """End what runs."""
        for task in (self._look, self._recognising):
            if task is not None:
                task.cancel()
        await self.connection.close()

    async def _recognise(self) -> EngineServer:
        try:
            entry = (await self.connection.models())[0]
        except Unavailable as error:  # nothing of the request is begun: another engine may have it
            raise NotReached(error.message) from error
        _log.info("engine_found", url=self.connection.url, owned_by=entry["owned_by"], model=entry["id"])
        if entry["owned_by"] == "vllm":
            self._server = VllmServer(self.connection, entry["id"], Registrations(self.connection, self._adapters))
        else:
            self._server = OwnServer(self.connection)
        return self._server

    async def _ask(self) -> None:
        health = await self.connection.health()
        if health != self.health:
            _log.info("engine_health", url=self.connection.url, health=health)
        self.health = health
        self._looked_at = time.monotonic()


class EngineClient:
    """The pool of engines; a request goes to the one where its prefix is warm.

    Args:
        urls: one URL, or several separated by commas.
        adapters: where adapters are put for vLLM servers; needed for fine-tuned models on those.
    """

    def __init__(self, urls: str, adapters: AdapterFolder | None = None) -> None:
        names = [url.strip().rstrip("/") for url in urls.split(",")]
        self._members = {url: Member(url, adapters) for url in names if url}
        self._adapters = adapters

    async def close(self) -> None:
        """Close the connections."""
        for member in self._members.values():
            await member.close()

    async def healthy(self) -> bool:
        """Whether an engine answers."""
        return "ready" in await asyncio.gather(*(member.connection.health() for member in self._members.values()))

    async def complete(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One whole answer; the errors are those of ``Connection.post``."""
        refusals: list[UserError] = []
        for member in await self._candidates(body):
            try:
                server = await member.server()
                return await server.complete(path, body)
            except _PASSED_BY as error:
                refusals.append(_noted(member, error))
        raise _best_of(refusals)

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a streamed answer; the same errors as ``complete``."""
        refusals: list[UserError] = []
        for member in await self._candidates(body):
            try:
                server = await member.server()
                async with aclosing(server.stream(path, body)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except _PASSED_BY as error:
                refusals.append(_noted(member, error))
        raise _best_of(refusals)

    async def remove(self, hashes: set[str]) -> None:
        """Have the engines forget weights that are deleted; one that is away has nothing to forget."""
        for member in self._members.values():
            for sha256 in sorted(hashes):
                try:
                    await (await member.server()).remove(sha256)
                except UserError as error:
                    _log.warning("engine_keeps_weights", url=member.connection.url, reason=error.message)
        if self._adapters is not None:
            await asyncio.to_thread(self._adapters.remove, hashes)

    async def forget(self, body: dict[str, Any]) -> bool:
        """Have the engines keep a context's prefix no longer; False: one that still may is to be asked again."""
        forgotten = True
        for member in self._members.values():
            try:
                async with asyncio.timeout(_FORGET_SECONDS):
                    await (await member.server()).forget(body)
            except (UserError, TimeoutError) as error:
                _log.warning("engine_keeps_prefix", url=member.connection.url, reason=str(error) or "no answer in time")
                never_will = isinstance(error, UserError) and error.retry_after_ms is None
                forgotten = forgotten and never_will
        return forgotten

    async def _candidates(self, body: dict[str, Any]) -> list[Member]:
        """The engines to ask, best first.

        Those that answer; else those that are silent, which may only be slow. Never one that says
        itself that it takes no requests: it finishes what it has.
        """
        await asyncio.gather(*(member.looked_after() for member in self._members.values()))
        members = [self._members[url] for url in ranked(self._members, routing_key(body))]
        for health in ("ready", "silent"):
            if chosen := [member for member in members if member.health == health]:
                return chosen
        raise Unavailable("No inference engine takes requests at the moment; try again in a moment")


def open_engines(settings: Settings, artifacts: ArtifactStore) -> EngineClient:
    """The engines of this process's settings."""
    folder = settings.adapter_folder
    adapters = None if folder is None else AdapterFolder(folder.resolve(), artifacts)
    return EngineClient(required(settings, "engine_url"), adapters)


def _noted(member: Member, error: UserError) -> UserError:
    if isinstance(error, NotReached):
        member.lost()
    return error


def _best_of(refusals: list[UserError]) -> UserError:
    """The last one after which trying again may help, if there is one."""
    return next((refusal for refusal in reversed(refusals) if refusal.retry_after_ms is not None), refusals[-1])
