"""Every error as the OpenAI envelope: ``{"error": {"message", "type", "param", "code"}}``."""

from difflib import SequenceMatcher
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import DataError, OperationalError
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import MAX_BODY_SIZE_SCOPE_KEY
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from api.creation import AnsweredBefore
from manyicl_core.allowed_values import shown
from manyicl_core.errors import TooLarge, Unavailable, UserError, envelope
from manyicl_core.field_errors import first_problem
from manyicl_core.store.engine import waited_too_long

_log = structlog.get_logger(__name__)

_CLIENT_CLOSED_REQUEST = 499
_NEAR_ROUTES, _NEAR = 3, 0.8
_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


def install_error_handlers(app: FastAPI) -> None:
    """Make every expected way of failing speak the envelope; the middleware catches the rest."""
    app.exception_handler(UserError)(_user_error)
    app.exception_handler(RequestValidationError)(_validation_error)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(OperationalError)(_database_away)
    app.exception_handler(DataError)(_unstorable)
    app.exception_handler(ClientDisconnect)(_client_gone)
    app.exception_handler(AnsweredBefore)(_answered_before)


def _user_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, UserError)
    return refusal(error)


def refusal(error: UserError) -> JSONResponse:
    """The answer to a refused request."""
    headers = {}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    if error.status == HTTPStatus.CONFLICT and error.retry_after_ms is None:
        headers["x-should-retry"] = "false"  # the client retries a 409 on its own otherwise
    if error.retry_after_ms is not None:
        headers["retry-after-ms"] = str(error.retry_after_ms)
    return JSONResponse(envelope(error.message, error.type, error.param, error.code), error.status, headers)


def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    where = errors[0]["loc"][0]
    if errors[0]["type"] == "json_invalid":
        return _invalid("The body is not valid JSON; send one JSON object", None)
    document = request.app.openapi()
    operation = _operation(document, request.scope["route"].name)
    if where == "body":
        [(expected, content)] = operation["requestBody"]["content"].items()
        given = request.headers.get("content-type", "").partition(";")[0].strip()
        # The framework gives bytes where JSON was due, and looks for no field of a form in anything else.
        if isinstance(error.body, bytes) or (expected != "application/json" and given.lower() != expected):
            told = f"content-type: give {expected}, not {shown(given) if given else 'none at all'}"
            return _invalid(told, "content-type")
        schema, sent = content["schema"], error.body
    else:
        parameters = [each for each in operation["parameters"] if each["in"] == where]
        schema = {"properties": {each["name"]: each["schema"] for each in parameters}}
        sent = {"query": request.query_params, "header": request.headers}.get(where, request.path_params)
    here = [{**each, "loc": each["loc"][1:]} for each in errors if each["loc"][0] == where]
    problem = first_problem(here, sent, document, schema)
    return _invalid(problem.message, problem.field or None)


def _operation(document: dict[str, Any], operation_id: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        operation
        for methods in document["paths"].values()
        for operation in methods.values()
        if operation["operationId"] == operation_id
    )
    return found


def _invalid(message: str, param: str | None) -> JSONResponse:
    return JSONResponse(envelope(message, "invalid_request_error", param, None), HTTPStatus.BAD_REQUEST)


def _http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses by itself: its messages are for programmers of servers."""
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    headers = error.headers
    if error.status_code == HTTPStatus.BAD_REQUEST:
        message = f"The body cannot be read ({message}); send it as the content type says, in UTF-8"
    elif error.status_code == HTTPStatus.NOT_FOUND:
        message = f"There is no {request.method} {request.url.path}; {_near(request)}"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = _allowed_methods(request)
        headers = {"allow": allowed}
        message = f"This route does not take {request.method}; it takes {allowed}"
    elif error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return refusal(too_large(request.scope))
    return JSONResponse(envelope(message, "invalid_request_error", None, None), error.status_code, headers)


def _near(request: Request) -> str:
    """The routes whose paths look like the one that was asked for, whatever the ids in them."""
    asked = request.url.path.split("/")
    scores: dict[str, float] = {}
    paths = request.app.openapi()["paths"]
    for path in paths:
        parts = path.split("/")
        ids = [number for number, part in enumerate(parts) if part.startswith("{")]
        without_ids = "/".join("{}" if number in ids else part for number, part in enumerate(asked))
        fixed = "/".join("{}" if number in ids else part for number, part in enumerate(parts))
        scores[path] = SequenceMatcher(None, without_ids, fixed).ratio()
    near = sorted((path for path in paths if scores[path] > _NEAR), key=lambda path: -scores[path])[:_NEAR_ROUTES]
    routes = [f"{method.upper()} {path}" for path in near for method in paths[path]]
    told = "near are " + ", ".join(routes) if routes else "the API is under /v1"
    return f"{told}, and GET /openapi.json has all routes"


def _allowed_methods(request: Request) -> str:
    """All that the path takes; the framework names those of the first route that has it."""
    if (documented := request.app.openapi()["paths"].get(request.url.path)) is not None:
        return ", ".join(sorted(method.upper() for method in documented))
    routes = request.app.router.routes

    def is_taken(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in routes)

    return ", ".join(method for method in _METHODS if is_taken(method))


def too_large(scope: Scope) -> TooLarge:
    """The body is over the limit of the route that it is for."""
    return TooLarge(f"The body is larger than {scope[MAX_BODY_SIZE_SCOPE_KEY]} bytes; send less at once")


def _database_away(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OperationalError)
    if waited_too_long(error):
        return refusal(Unavailable("Another request keeps what this one needs; try again in a moment"))
    return database_away(error)


def database_away(error: Exception) -> JSONResponse:
    """The answer while the database restarts."""
    _log.warning("database_away", reason=str(error).splitlines()[0])
    return refusal(Unavailable("The database does not answer; try again in a moment"))


def _answered_before(_: Request, error: Exception) -> Response:
    assert isinstance(error, AnsweredBefore)
    return Response(error.answer, media_type="application/json", headers={"idempotent-replayed": "true"})


def _unstorable(_: Request, __: Exception) -> JSONResponse:
    return _invalid("A text holds a character that cannot be stored, such as NUL; remove it", None)


def _client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=_CLIENT_CLOSED_REQUEST)  # for the log alone


def unexpected_error(error: Exception) -> JSONResponse:
    """The answer to a request that met a mistake of ours."""
    return JSONResponse(unexpected_envelope(error), HTTPStatus.INTERNAL_SERVER_ERROR)


def unexpected_envelope(error: Exception) -> dict[str, Any]:
    """The body for a mistake of ours; the log gets the story."""
    _log.error("unexpected_error", exc_info=error)
    return envelope(
        "The server made a mistake; its log has the story under this request id", "server_error", None, None
    )
