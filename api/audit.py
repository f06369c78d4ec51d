"""Records every write, in one place."""

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manyicl_core.errors import Unavailable, envelope
from manyicl_core.store.projects.audit import record_write
from manyicl_core.store.projects.service import Caller
from manyicl_core.store.session import transaction

_log = structlog.get_logger(__name__)

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_WRITING_SCOPES = frozenset({"write", "admin", "operator"})


def remember_writer(request: Request, caller: Caller, demanded: Sequence[str]) -> None:
    """Tell the middleware that this request writes, and for whom."""
    if request.method not in _READING and _WRITING_SCOPES.intersection(demanded):
        request.state.writer = caller


class AuditMiddleware:
    """Holds a successful write's answer back until its row in the audit log is committed.

    No client is told of a write that the log lacks. Where the row cannot be committed, the answer is a
    503; the write itself was committed before, by its route.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or scope["method"] in _READING:
            await self._app(scope, receive, send)
            return
        held: list[Message] | None = None

        async def send_recorded(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and _is_write(scope, message["status"]):
                held = []
            if held is None:
                await send(message)
                return
            held.append(message)
            if message["type"] == "http.response.start" or message.get("more_body", False):
                return
            try:
                await run_in_threadpool(self._record, scope, held)
            except SQLAlchemyError as error:
                _log.error("audit_failed", route=_route(scope), reason=str(error).splitlines()[0])
                await _refusal()(scope, receive, send)
                return
            for part in held:
                await send(part)

        await self._app(scope, receive, send_recorded)

    def _record(self, scope: Scope, answer: list[Message]) -> None:
        caller = scope["state"]["writer"]
        assert isinstance(caller, Caller)
        parameters = scope["path_params"]
        with transaction() as session:
            record_write(
                session,
                caller,
                # An operator also writes to other projects.
                project_id=parameters.get("project_id", caller.project_id),
                method=scope["method"],
                route=self._prefix + _route(scope),
                resource_id=_resource_id(answer) or next(reversed(parameters.values()), None),
                request_id=structlog.contextvars.get_contextvars()["request_id"],
                status=answer[0]["status"],
            )


def _is_write(scope: Scope, status: int) -> bool:
    return "writer" in scope.get("state", {}) and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES


def _route(scope: Scope) -> str:
    path = scope["route"].path
    assert isinstance(path, str)
    return path


def _resource_id(answer: list[Message]) -> str | None:
    """The ``id`` of the object that the answer shows."""
    try:
        shown: Any = json.loads(b"".join(message.get("body", b"") for message in answer))
    except ValueError:
        return None
    id_ = shown.get("id") if isinstance(shown, dict) else None
    return id_ if isinstance(id_, str) else None


def _refusal() -> JSONResponse:
    error = Unavailable("The write is done, but not entered in the audit log; look for it before you send it again")
    body = envelope(error.message, error.type, error.param, "audit_failed")
    return JSONResponse(body, error.status, {"x-should-retry": "false"})
