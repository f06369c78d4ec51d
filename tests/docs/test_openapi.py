"""The OpenAPI document is complete, and ``docs/openapi.json`` is it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app

SNAPSHOT = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app().openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_the_kept_document_is_that_of_the_code(document: dict[str, Any]) -> None:
    assert json.loads(SNAPSHOT.read_text(encoding="utf-8")) == document, "run `make openapi` and commit the change"


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in names)


def test_every_operation_tells_its_errors_its_key_and_what_it_answers(document: dict[str, Any]) -> None:
    assert set(document["components"]["responses"]["NotFound"]["content"]) == {"application/json"}
    for name, operation in operations(document):
        assert operation["summary"], name
        if name == "GET /health":
            continue
        assert operation["security"], name
        assert {"400", "401", "403", "429", "500", "503"} <= set(operation["responses"]), name
        assert ("404" in operation["responses"]) or "{" not in name, name
        assert "$ref" not in operation["responses"]["200"], name
        for content in operation["responses"]["200"].get("content", {}).values():
            assert content.get("schema"), f"{name}: its answer has no schema; give the route a return type"


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert "example" in content, f"{name}: add a body to api/examples.py"


def test_the_page_loads_nothing_from_elsewhere() -> None:
    client = TestClient(create_app())
    page = client.get("/docs").text
    sources = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page)
    assert sources
    for source in sources:
        assert source.startswith("/")
        assert client.get(source).status_code == 200
    assert client.get("/redoc").status_code == 404
