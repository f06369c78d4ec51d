"""The engine as one project's requests see it: rate limits before, usage after."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from api.dependencies import EngineDep, InferenceDep
from manyicl_core.engines.client import EngineClient
from manyicl_core.store.quotas.rate_limits import RateLimits
from manyicl_core.store.quotas.service import project_quotas
from manyicl_core.store.session import transaction
from manyicl_core.store.usage.interactive import InteractiveUsage
from manyicl_core.store.usage.service import INTERACTIVE, served

_WRITE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class MeteredEngine:
    """Asks the engine for a project, and counts what it gives."""

    engine: EngineClient
    project_id: str
    tokens_per_minute: int
    rate_limits: RateLimits
    usage: InteractiveUsage

    async def complete(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """As ``EngineClient.complete``."""
        answer = await self.engine.complete(path, body)
        self._count(answer["usage"])
        return answer

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """As ``EngineClient.stream``; a stream that is left early counts for what its last chunk says."""
        usage: dict[str, Any] = {}
        try:
            async with aclosing(self.engine.stream(path, body)) as chunks:
                async for chunk in chunks:
                    usage = chunk.get("usage") or usage
                    yield chunk
        finally:
            if usage:
                self._count(usage)

    def _count(self, usage: dict[str, Any]) -> None:
        self.usage.add(self.project_id, served(INTERACTIVE, usage))
        tokens = usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)
        self.rate_limits.spend(self.project_id, self.tokens_per_minute, tokens)


@asynccontextmanager
async def writing_usage() -> AsyncIterator[InteractiveUsage]:
    """What requests add to; it is written every few seconds, and once more at the end."""
    usage = InteractiveUsage()

    async def write() -> None:
        while True:
            await asyncio.sleep(_WRITE_SECONDS)
            await run_in_threadpool(usage.write)

    writing = asyncio.create_task(write())
    yield usage
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await run_in_threadpool(usage.write)


def _metered_engine(request: Request, caller: InferenceDep, engine: EngineDep) -> MeteredEngine:
    state = request.app.state
    rate_limits, usage = state.rate_limits, state.usage
    assert isinstance(rate_limits, RateLimits)
    assert isinstance(usage, InteractiveUsage)
    with transaction() as session:
        quotas = project_quotas(session, caller.project_id)
    tokens_per_minute = quotas["tokens_per_minute"]
    admission = rate_limits.admit(caller.project_id, quotas["requests_per_minute"], tokens_per_minute)
    if admission is not None:
        request.state.rate_limit_headers = admission.headers()
        admission.check()
    return MeteredEngine(engine, caller.project_id, tokens_per_minute, rate_limits, usage)


MeteredEngineDep = Annotated[MeteredEngine, Depends(_metered_engine)]
"""For routes of inference: refuses what goes over the project's requests or tokens a minute."""
