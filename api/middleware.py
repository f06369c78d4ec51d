"""What every request passes: a request id, and a limit of its body."""

import secrets

import structlog
from starlette.datastructures import MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import unexpected_error
from manyicl_core.errors import TooLarge, envelope


class RequestIdMiddleware:
    """Sends ``x-request-id``, which the ``openai`` client shows as ``_request_id``.

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
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception as error:
                response = unexpected_error(error)
                if started:
                    raise
                await response(scope, receive, send_with_id)


class BodyLimitMiddleware:
    """Refuses bodies over a size, declared or streamed, in the error envelope.

    Starlette's limiter answers in plain text and past every exception handler; its answer is
    replaced on the way out.
    """

    def __init__(self, app: ASGIApp, max_body_size: int) -> None:
        self._app = RequestBodyLimitMiddleware(app, max_body_size)
        error = TooLarge(f"The request is larger than {max_body_size} bytes; send less at once")
        self._refusal = JSONResponse(envelope(error.message, error.type, None, None), error.status)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        refused = False

        async def send_in_envelope(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] == TooLarge.status:
                refused = "json" not in MutableHeaders(scope=message).get("content-type", "")
                if refused:
                    await self._refusal(scope, receive, send)
            if not refused:
                await send(message)

        await self._app(scope, receive, send_in_envelope)
