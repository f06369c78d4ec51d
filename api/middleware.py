"""What every request passes: a request id, a limit of its body, and a check of its JSON."""

import secrets

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import refusal, too_large, unexpected_error
from manyicl_core.errors import InvalidRequest, TooLarge
from manyicl_core.foreign_formats import foreign_format
from manyicl_core.strict_json import parse_json


class RequestIdMiddleware:
    """Sends ``x-request-id``, which the ``openai`` client shows as ``_request_id``, and the rate limits' headers.

    Outermost, so it also answers what nobody else has caught.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = "req_" + secrets.token_hex(16)

        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers.update(scope.get("state", {}).get("rate_limit_headers", {}))
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception as error:
                response = unexpected_error(error)
                if started:
                    raise
                await response(scope, receive, send_with_id)


class HeadMiddleware:
    """Answers HEAD wherever GET is answered: the same status and headers, and no body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            # What is answered is over with its headers: nobody waits for the end of a stream.
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app({**scope, "method": "GET"}, receive, send_head)


class BodyLimitMiddleware:
    """Refuses bodies over a size, declared or streamed, in the error envelope.

    A route that takes more says so by its own ``max_body_size``. Starlette's limiter answers in
    plain text and past every exception handler; its answer is replaced on the way out.
    """

    def __init__(self, app: ASGIApp, max_body_size: int) -> None:
        self._app = RequestBodyLimitMiddleware(app, max_body_size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        refused = False

        async def send_in_envelope(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] == TooLarge.status:
                refused = "json" not in MutableHeaders(scope=message).get("content-type", "")
                if refused:
                    await refusal(too_large(scope))(scope, receive, send)
            if not refused:
                await send(message)

        await self._app(scope, receive, send_in_envelope)


class JsonBodyMiddleware:
    """Refuses JSON bodies with what breaks somewhere later: see ``manyicl_core.strict_json``.

    What it lets pass is parsed once more by the framework, which takes microseconds a kilobyte.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        encoding = headers.get("content-encoding", "identity")
        if encoding != "identity":
            message = f"content-encoding: the body comes as {encoding!r}; send it as it is, without this header"
            await refusal(InvalidRequest(message, "content-encoding"))(scope, receive, send)
            return
        if not _is_json(headers.get("content-type", "")):
            await self._app(scope, receive, send)
            return
        try:
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            return
        try:
            if (told := foreign_format(body)) is not None:
                raise ValueError(told)
            if body:
                parse_json(body.decode("utf-8-sig"))
        except UnicodeDecodeError:
            await refusal(InvalidRequest("The body is not UTF-8; send JSON in UTF-8"))(scope, receive, send)
            return
        except ValueError as error:
            message = f"The body is not JSON that can be used: {error}"
            await refusal(InvalidRequest(message))(scope, receive, send)
            return
        read = False

        async def receive_again() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_again, send)


def _is_json(content_type: str) -> bool:
    name = content_type.partition(";")[0].strip().lower()
    return name == "application/json" or (name.startswith("application/") and name.endswith("+json"))
