"""The OpenAPI document with every route's errors and examples, and the page that shows it.

``python -m api.documentation FILE`` writes the document.
"""

import json
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from starlette.staticfiles import StaticFiles

from api.examples import EXAMPLES

_ASSETS = "/docs/assets"

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "what is wrong, and what to do about it"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "the field at fault, dotted"},
                "code": {"type": ["string", "null"], "description": "a stable word for programs"},
            },
        }
    },
}

_RESPONSES = {
    400: ("BadRequest", "A field, or a line of a file, is wrong; the message names it"),
    401: ("Unauthorized", "The key is missing, wrong or revoked"),
    403: ("Forbidden", "The key may not do this"),
    404: ("NotFound", "The project has nothing of that id"),
    409: ("Conflict", "Its state forbids this; retrying does not help"),
    413: ("TooLarge", "The body has too many bytes"),
    422: ("Unprocessable", "The Idempotency-Key was used for another request"),
    429: ("TooMany", "A quota or rate limit is reached, or the engine is full; wait for retry-after-ms"),
    500: ("ServerError", "A mistake of the server; its log has the story under the x-request-id"),
    503: ("Unavailable", "A part of the service does not answer at the moment; wait for retry-after-ms"),
    504: ("Late", "There was not enough time"),
    507: ("StorageFull", "There is no room left"),
}
_ANY = (400, 401, 403, 429, 500, 503)
_ANY_POST = (409, 413, 422, 504, 507)


def install_documentation(app: FastAPI) -> None:
    """Serve ``/openapi.json`` and ``/docs``, which loads nothing from elsewhere."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    def page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{_ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{_ASSETS}/favicon-32x32.png",
        )

    app.openapi = document  # type: ignore[method-assign]
    app.get("/docs", include_in_schema=False)(page)
    app.mount(_ASSETS, StaticFiles(packages=[("fastapi_swagger", "resources")]))


def operation_id(route: APIRoute) -> str:
    """The name of the route's function, which is unique."""
    return route.name


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description="Many-shot in-context fine-tuning behind the OpenAI API. Every error has the same body.",
        routes=app.routes,
        separate_input_output_schemas=False,
    )
    components = document["components"]
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    components["schemas"]["Error"] = _ERROR
    components["responses"] = {name: _response(status, said) for status, (name, said) in _RESPONSES.items()}
    for path, methods in document["paths"].items():
        if path.startswith("/v1/"):
            for method, operation in methods.items():
                _complete(path, method, operation)
    return document


def _response(status: int, description: str) -> dict[str, Any]:
    headers: dict[str, Any] = {"x-request-id": {"schema": {"type": "string"}}}
    if status in (429, 503):
        headers["retry-after-ms"] = {"schema": {"type": "string"}}
    if status == 409:
        headers["x-should-retry"] = {"schema": {"const": "false"}}
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": description, "headers": headers, "content": {"application/json": {"schema": schema}}}


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    """Give an operation its errors, and its body the example."""
    has_body = "requestBody" in operation
    statuses = set(_ANY)
    if has_body or "{" in path or any(parameter["name"] == "after" for parameter in operation.get("parameters", ())):
        statuses.add(404)
    if method == "post":
        statuses.update(_ANY_POST)
    operation["responses"].pop("422", None)
    for status in sorted(statuses):
        operation["responses"][str(status)] = {"$ref": f"#/components/responses/{_RESPONSES[status][0]}"}
    if operation["operationId"] in EXAMPLES:
        for content in operation["requestBody"]["content"].values():
            content["example"] = EXAMPLES[operation["operationId"]]


if __name__ == "__main__":
    from api.app import create_app

    Path(sys.argv[1]).write_text(json.dumps(create_app().openapi(), indent=1) + "\n", encoding="utf-8")
