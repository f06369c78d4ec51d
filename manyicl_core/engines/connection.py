"""One HTTP server that answers: requests, streams, and its refusals as errors of ours."""

import json
import socket
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import httpx2

from manyicl_core.errors import ENGINE_ERROR, DeadlineExceeded, InvalidRequest, Overloaded, Unavailable, UserError

Health = Literal["ready", "refuses", "silent"]

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 600.0
_RETRY_AFTER_MS = 1000
_TIMEOUT = httpx2.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
_BULK_TIMEOUT = httpx2.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS, read=None)
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
]
"""A host that is gone is noticed within two minutes, also where nothing limits the waiting for an answer."""


class NotReached(Unavailable):
    """There is no connection: the server has seen nothing of the request."""


class UnknownModel(UserError):
    """The server has no model, or no weights, of that name."""

    status = 404


class Connection:
    """A pool of connections to the server at ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url
        # How much waits is the server's to bound, not the pool's.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100)
        transport = httpx2.AsyncHTTPTransport(limits=limits, socket_options=_KEEPALIVE)
        self._http = httpx2.AsyncClient(base_url=url, timeout=_TIMEOUT, transport=transport)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def health(self) -> Health:
        """``refuses`` when it says itself that it takes no requests, ``silent`` when it says nothing."""
        try:
            response = await self._http.get("/health", timeout=_CONNECT_SECONDS)
        except httpx2.HTTPError:
            return "silent"
        return "ready" if response.is_success else "refuses"

    async def models(self) -> list[dict[str, Any]]:
        """The entries of ``GET /v1/models``; the same errors as ``post``."""
        with _transport_errors():
            response = await self._http.get("/v1/models", timeout=_CONNECT_SECONDS)
        _check(response.status_code, response.headers, response.content)
        entries = response.json()["data"]
        assert isinstance(entries, list)
        return entries

    async def post(self, path: str, body: dict[str, Any], bulk: bool = False) -> Any:
        """The answer to one request: parsed where it is JSON, else its text.

        Args:
            path: the route.
            body: sent as JSON.
            bulk: it stands behind all that somebody waits for, so no time is too long.

        Raises:
            NotReached: there is no connection.
            Unavailable: the server fails.
            Overloaded: its queue is full.
            DeadlineExceeded: it was not done in time.
            UnknownModel: it has no such model.
            InvalidRequest: it refuses the request.
        """
        with _transport_errors():
            response = await self._http.post(path, json=body, timeout=_BULK_TIMEOUT if bulk else _TIMEOUT)
        _check(response.status_code, response.headers, response.content)
        is_json = response.headers.get("content-type", "").startswith("application/json")
        return response.json() if is_json else response.text

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a streamed answer; the same errors as ``post``."""
        with _transport_errors():
            async with self._http.stream("POST", path, json={**body, "stream": True}) as response:
                if not response.is_success:
                    _check(response.status_code, response.headers, await response.aread())
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        chunk = json.loads(line.removeprefix("data: "))
                        if "error" in chunk:
                            raise _refusal(_late_status(chunk["error"]), {}, chunk["error"])
                        yield chunk


@contextmanager
def _transport_errors() -> Iterator[None]:
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise NotReached(_away(error)) from error
    except httpx2.HTTPError as error:  # it had the request: this one may be what it dies of, or never ends
        raise Unavailable(_away(error), code=ENGINE_ERROR) from error


def _away(error: Exception) -> str:
    return f"The inference engine does not answer ({type(error).__name__}); try again in a moment"


def _check(status: int, headers: Mapping[str, str], content: bytes) -> None:
    if status < 400:
        return
    try:
        error = json.loads(content)["error"]
        raise _refusal(status, headers, error)
    except (ValueError, KeyError, TypeError):
        raise Unavailable(
            f"The inference engine failed with status {status}; its log has the story", code=ENGINE_ERROR
        ) from None


def _refusal(status: int, headers: Mapping[str, str], error: Mapping[str, Any]) -> UserError:
    """A server's error object as ours, with its code; vLLM's codes are numbers and say nothing more."""
    message, param = str(error["message"]), error.get("param")
    code = error.get("code")
    code = code if isinstance(code, str) else None
    if status == UnknownModel.status:
        return UnknownModel(message, "model", "model_not_found")
    if status == Overloaded.status:
        return Overloaded(message, _retry_after_ms(headers), code or "engine_overloaded")
    if status == DeadlineExceeded.status:
        return DeadlineExceeded(message, param, code or "deadline_exceeded")
    if status >= 500:
        is_away = status == Unavailable.status
        return Unavailable(message, param, code or (None if is_away else ENGINE_ERROR))
    return InvalidRequest(message, param, code)


def _retry_after_ms(headers: Mapping[str, str]) -> int:
    try:
        return max(1, int(headers["retry-after-ms"]))
    except (KeyError, ValueError):
        return _RETRY_AFTER_MS


def _late_status(error: Mapping[str, Any]) -> int:
    """The status of an error inside a stream, whose own status was 200."""
    if isinstance(error.get("code"), int):
        return int(error["code"])
    return 400 if error.get("type") == "invalid_request_error" else 500
