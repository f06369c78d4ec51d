"""An engine of ours behind a connection."""

from collections.abc import AsyncGenerator
from typing import Any, Protocol

from manyicl_core.engines.connection import Connection


class EngineServer(Protocol):
    """What every kind of engine does; bodies are those of our own engine.

    The errors are those of ``Connection.post``.
    """

    async def complete(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One whole answer."""

    def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a streamed answer; the ``usage`` so far is in each, the whole in a last one without choices."""

    async def remove(self, sha256: str) -> None:
        """Forget fine-tuned weights."""

    async def forget(self, body: dict[str, Any]) -> None:
        """Keep a context's prefix no longer: ``model``, ``tokens`` and ``cache_salt`` that it was compiled with."""


def is_bulk(body: dict[str, Any]) -> bool:
    """Whether a request may wait behind all that somebody waits for."""
    return bool(body.get("priority", 0) > 0)


class OwnServer:
    """Our engine: it fetches weights by their hash, and forgets those that nobody uses by itself."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def complete(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One whole answer."""
        answer = await self._connection.post(path, body, is_bulk(body))
        assert isinstance(answer, dict)
        return answer

    def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a streamed answer."""
        return self._connection.stream(path, body)

    async def remove(self, sha256: str) -> None:
        """Nothing to do."""

    async def forget(self, body: dict[str, Any]) -> None:
        """From memory and from disk."""
        await self._connection.post("/v1/prefixes/forget", body)
