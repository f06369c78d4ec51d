"""Errors that reach a user: each names the field or line, the reason and the remedy."""

import os
import re
from typing import Any

_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_SECRET = re.compile(r"SECRET|PASSWORD|TOKEN|_KEY")
_SHORTEST_SECRET = 8
_MOST_CHARACTERS = 500


def envelope(message: str, type_: str, param: str | None, code: str | None) -> dict[str, Any]:
    """The error body that every OpenAI client reads."""
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


class UserError(Exception):
    """A refused request, in the terms of the OpenAI error envelope.

    Attributes:
        message: what is wrong and what to do about it.
        param: the field at fault, dotted, or None.
        code: a short stable word for programs, or None.
        retry_after_ms: when trying again may help, or None when it does not.
    """

    status = 400
    type = "invalid_request_error"
    retry_after_ms: int | None = None

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class InvalidRequest(UserError):
    """The request's content is wrong."""


class Unauthorized(UserError):
    """No key, or one that does not hold."""

    status = 401
    type = "authentication_error"

    def __init__(self) -> None:
        super().__init__(
            "This API key is missing, wrong or revoked; send a valid one as 'Authorization: Bearer <key>'",
            code="invalid_api_key",
        )


class Forbidden(UserError):
    """A valid key that may not do this."""

    status = 403
    type = "permission_error"


class InsufficientScope(Forbidden):
    """The key lacks a scope."""

    def __init__(self, scope: str) -> None:
        super().__init__(
            f"This key lacks the scope {scope!r}; use a key that has it, or ask whoever manages your keys for one",
            code="insufficient_scope",
        )


class NotFound(UserError):
    """Nothing of that id in the caller's project."""

    status = 404

    def __init__(self, what: str, id_: str, param: str | None = None) -> None:
        code = "model_not_found" if what == "model" else None
        super().__init__(f"There is no {what} {id_!r} in this project", param, code)


class NothingKept(UserError):
    """What reads a response back, or goes on from it."""

    status = 404

    def __init__(self, path: str) -> None:
        super().__init__(
            f"There is no /v1/responses/{path}: nothing of a response is kept here, whatever its 'store' said. "
            "Send all messages with POST /v1/responses"
        )


class ProjectNotFound(UserError):
    """No project of that id that the caller may manage."""

    status = 404

    def __init__(self, id_: str, param: str | None = None) -> None:
        super().__init__(f"There is no project {id_!r} that this key may manage", param)


class Conflict(UserError):
    """The thing exists but is in a state that forbids the request; retrying does not help."""

    status = 409


class TooLarge(UserError):
    """More bytes than this installation accepts."""

    status = 413


ENGINE_ERROR = "engine_error"
OUT_OF_MEMORY = "out_of_memory"
ENGINE_FAILURES = {ENGINE_ERROR, OUT_OF_MEMORY}
"""The codes of an engine's own failures at one request; trying again does not help for ever."""


class Unavailable(UserError):
    """A part of the service does not answer at the moment; retrying helps."""

    status = 503
    type = "server_error"
    retry_after_ms: int | None = 2000


class StorageAway(Unavailable):
    """The artifact store does not answer; it has tried for some minutes, and may have done what was asked."""


class NotReady(Unavailable):
    """What is asked for is being made; the same request succeeds in a moment."""

    retry_after_ms = 1000


class Overloaded(UserError):
    """The queue is full; nothing was begun, and there is room again after ``retry_after_ms``."""

    status = 429
    type = "rate_limit_error"

    def __init__(self, message: str, retry_after_ms: int, code: str = "engine_overloaded") -> None:
        super().__init__(message, code=code)
        self.retry_after_ms = retry_after_ms


class DeadlineExceeded(UserError):
    """The answer was not complete in the time that it was given; what was begun is dropped."""

    status = 504
    type = "server_error"


class StorageFull(UserError):
    """The disk has no room left; nothing was stored."""

    status = 507
    type = "server_error"


def in_its_own_words(error: BaseException) -> str:
    """The class and the first line of an error that nobody expected, for whoever it concerns; no secrets.

    The lines behind the first hold what only a developer can use, and what a statement was given.
    """
    text = _CREDENTIALS.sub("…@", str(error).strip().partition("\n")[0])
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "…")
    return f"{type(error).__name__}: {text[:_MOST_CHARACTERS]}" if text else type(error).__name__
