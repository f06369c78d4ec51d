"""Ask the inference engine, or any server of vLLM's shape, over HTTP."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from manyicl_core.errors import InvalidRequest, NotFound, Unavailable

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 600.0


class EngineClient:
    """One pool of connections to one engine."""

    def __init__(self, url: str) -> None:
        timeout = httpx2.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
        self._http = httpx2.AsyncClient(base_url=url, timeout=timeout)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def healthy(self) -> bool:
        """Whether the engine answers."""
        try:
            return (await self._http.get("/health", timeout=_CONNECT_SECONDS)).is_success
        except httpx2.HTTPError:
            return False

    async def complete(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One whole answer.

        Raises:
            Unavailable: the engine does not answer.
            InvalidRequest: it refuses the request.
        """
        try:
            response = await self._http.post(path, json=body)
        except httpx2.HTTPError as error:
            raise _away(error) from error
        _check(response.status_code, response.content)
        content = response.json()
        assert isinstance(content, dict)
        return content

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The chunks of a streamed answer; the same errors as ``complete``."""
        try:
            async with self._http.stream("POST", path, json={**body, "stream": True}) as response:
                if not response.is_success:
                    _check(response.status_code, await response.aread())
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        yield json.loads(line.removeprefix("data: "))
        except httpx2.HTTPError as error:
            raise _away(error) from error


def _away(error: Exception) -> Unavailable:
    return Unavailable(f"The inference engine does not answer ({type(error).__name__}); try again in a moment")


def _check(status: int, content: bytes) -> None:
    if status < 400:
        return
    try:
        error = json.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        raise Unavailable(f"The inference engine failed with status {status}; its log has the story") from None
    if status == 404:
        raise NotFound("model", error["message"], "model")
    if status >= 500:
        raise Unavailable(error["message"])
    raise InvalidRequest(error["message"], error.get("param"), error.get("code"))
