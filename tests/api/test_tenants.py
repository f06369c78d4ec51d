"""No project reaches into another, by any route there is.

The routes are the application's own, so a new one is held to this from its first day. Where it needs
something that these tests cannot guess, they fail and say what to add.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from fastapi.routing import iter_route_contexts

from api.app import create_app
from manyicl_core.store.projects.service import get_or_create_project
from manyicl_core.store.session import transaction
from tests.contexts import PASTED
from tests.services import BASE_MODEL
from tests.tenants import Tenant, make_tenant

# Of responses nothing is kept, so all of them are nowhere for everybody.
PUBLIC = {"/health", "/openapi.json", "/docs", "/docs/assets/{path}", "/v1/responses/{path}"}

CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}

BODIES: dict[str, dict[str, Any]] = {
    "POST /v1/fine_tuning/checkpoints/{model}/permissions": {"json": {"project_ids": ["proj_other"]}},
    "POST /v1/webhook_endpoints/{endpoint_id}/test": {"json": {"event_type": "batch.failed"}},
    "POST /v1/uploads/{upload_id}/complete": {"json": {"part_ids": []}},
    "POST /v1/uploads/{upload_id}/parts": {"files": {"data": b"x"}},
    "POST /v1/organization/projects/{project_id}/api_keys": {"json": {"name": "another"}},
    "POST /v1/organization/projects/{project_id}/api_keys/{api_key_id}": {"json": {"name": "renamed"}},
    "POST /v1/organization/projects/{project_id}/quotas": {"json": {"queued_jobs": 5}},
}
"""What a route with an id in its path takes beside it."""

AFTER = {
    "/v1/files": "file_id",
    "/v1/fine_tuning/jobs": "job_id",
    "/v1/fine_tuning/jobs/{job_id}/events": "job_event",
    "/v1/fine_tuning/jobs/{job_id}/checkpoints": "checkpoint",
    "/v1/evaluations": "evaluation_id",
    "/v1/evaluations/{evaluation_id}/events": "evaluation_event",
    "/v1/contexts": "context_id",
    "/v1/batches": "batch_id",
    "/v1/uploads": "upload_id",
    "/v1/uploads/{upload_id}/parts": "part",
    "/v1/webhook_endpoints": "endpoint_id",
    "/v1/webhook_endpoints/{endpoint_id}/deliveries": "delivery",
    "/v1/fine_tuning/checkpoints/{model}/permissions": "permission_id",
    "/v1/organization/projects": "project_id",
    "/v1/organization/projects/{project_id}/api_keys": "api_key_id",
    "/v1/organization/audit_logs": "audit_log",
}
"""What each list is a list of."""

Body = Callable[[dict[str, str], dict[str, str]], dict[str, Any]]

# A job and its plan take the same body; ``mine`` and ``theirs`` are ids of the caller's and of another project.
_JOB: dict[str, Body] = {
    "training_file": lambda mine, theirs: {"model": BASE_MODEL, "training_file": theirs["file_id"]},
    "validation_file": lambda mine, theirs: {
        "model": BASE_MODEL,
        "training_file": mine["file_id"],
        "validation_file": theirs["validation_file"],
    },
    "model": lambda mine, theirs: {"model": theirs["model"], "training_file": mine["file_id"]},
    "task's model": lambda mine, theirs: {"model": theirs["task_model"], "training_file": mine["file_id"]},
}
REFERENCES: dict[str, dict[str, Body]] = {
    "POST /v1/fine_tuning/jobs": _JOB,
    "POST /v1/fine_tuning/jobs/plan": _JOB,
    "POST /v1/evaluations": {
        "model": lambda mine, theirs: {"model": theirs["model"]},
        "task's model": lambda mine, theirs: {"model": theirs["task_model"]},
        "models": lambda mine, theirs: {"models": [BASE_MODEL, theirs["model"]]},
        "training_file": lambda mine, theirs: {
            "model": BASE_MODEL,
            "training_file": theirs["file_id"],
            "validation_file": mine["validation_file"],
        },
        "validation_file": lambda mine, theirs: {
            "model": BASE_MODEL,
            "training_file": mine["file_id"],
            "validation_file": theirs["validation_file"],
        },
    },
    "POST /v1/contexts": {
        "model": lambda mine, theirs: {**PASTED, "model": theirs["model"]},
        "task's model": lambda mine, theirs: {**PASTED, "model": theirs["task_model"]},
        "file": lambda mine, theirs: {"model": BASE_MODEL, "file": theirs["file_id"], "task": "sum"},
    },
    "POST /v1/chat/completions": {
        "model": lambda mine, theirs: {**CHAT, "model": theirs["model"]},
        "task's model": lambda mine, theirs: {**CHAT, "model": theirs["task_model"]},
        "context": lambda mine, theirs: {
            **CHAT,
            "model": BASE_MODEL,
            "manyicl": {"context": theirs["context_id"]},
        },
    },
    "POST /v1/classifications": {
        "model": lambda mine, theirs: {"model": theirs["context_id"], "input": "x", "manyicl": {}},
        "task's model": lambda mine, theirs: {"model": theirs["task_model"], "input": "x"},
        "context": lambda mine, theirs: {
            "model": BASE_MODEL,
            "input": "x",
            "manyicl": {"context": theirs["context_id"]},
        },
    },
    "POST /v1/completions": {
        "model": lambda mine, theirs: {"model": theirs["model"], "prompt": "x"},
        "task's model": lambda mine, theirs: {"model": theirs["task_model"], "prompt": "x"},
        "context": lambda mine, theirs: {
            "model": BASE_MODEL,
            "prompt": "x",
            "manyicl": {"context": theirs["context_id"]},
        },
    },
    "POST /v1/responses": {
        "model": lambda mine, theirs: {"model": theirs["model"], "input": "x"},
        "task's model": lambda mine, theirs: {"model": theirs["task_model"], "input": "x"},
        "context": lambda mine, theirs: {
            "model": BASE_MODEL,
            "input": "x",
            "manyicl": {"context": theirs["context_id"]},
        },
    },
    "POST /v1/uploads/{upload_id}/complete": {"part_ids": lambda mine, theirs: {"part_ids": [theirs["part"]]}},
    "POST /v1/batches": {
        "input_file_id": lambda mine, theirs: {
            "input_file_id": theirs["batch_file"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        },
    },
}
"""The fields that name things of a project, and bodies in which one names another project's."""

NAMES_A_THING = re.compile(r"(^|_)(id|ids|file|files|model|models|context|contexts|job|jobs)$")
NO_REFERENCES = {
    # A permission is given to another project, which the model's owner names.
    "POST /v1/fine_tuning/checkpoints/{model}/permissions": {"project_ids"},
    "GET /v1/fine_tuning/checkpoints/{model}/permissions": {"project_id"},
    # Of an item that a client sends back; and nothing is kept that it could name: anything here is refused.
    "POST /v1/responses": {"id", "previous_response_id"},
    # How many, not which.
    "POST /v1/organization/projects/{project_id}/quotas": {"queued_jobs", "running_jobs"},
}


@dataclass(frozen=True)
class Route:
    """One method of one path, as the OpenAPI document and the application know it."""

    method: str
    path: str
    operation: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def scopes(self) -> list[str]:
        return [
            scope for scheme in self.operation.get("security", []) for scopes in scheme.values() for scope in scopes
        ]

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"{(.*?)}", self.path)

    @property
    def pages_by_id(self) -> bool:
        after = [p["schema"] for p in self.operation.get("parameters", []) if p["name"] == "after"]
        return any("string" in str(schema) for schema in after)


DOCUMENT = create_app().openapi()


def _routes() -> list[Route]:
    """What can be read first, what is deleted last: one test's thing is there for the next."""
    found = [
        Route(method, path, DOCUMENT["paths"].get(path, {}).get(method.lower(), {}))
        for context in iter_route_contexts(create_app().routes)
        for path in [str(context.path_format or context.path)]
        for method in (context.methods or {"GET"}) - {"HEAD", "OPTIONS"}
        if path not in PUBLIC
    ]
    order = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    return sorted(found, key=lambda route: (order.index(route.method), -len(route.path), route.path))


ROUTES = _routes()


def each(routes: list[Route]) -> Any:
    return pytest.mark.parametrize("route", [pytest.param(route, id=route.name) for route in routes])


@pytest.fixture(scope="module")
def mine(installation: str) -> Tenant:
    return make_tenant(installation)


@pytest.fixture(scope="module")
def theirs(installation: str) -> Tenant:
    return make_tenant(installation)


@pytest.fixture(scope="module")
def http(installation: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=installation.removesuffix("/v1"), timeout=60) as client:
        yield client


def send(http: httpx2.Client, route: Route, ids: dict[str, str], key: str | None, **options: Any) -> httpx2.Response:
    unknown = set(route.parameters) - set(ids)
    assert not unknown, f"{route.name}: teach tests/tenants.py to make something for {', '.join(unknown)}"
    path = re.sub(r"{(.*?)}", lambda match: quote(ids[match[1]], safe=""), route.path)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    if route.method == "POST" and "json" not in options:
        options |= BODIES.get(route.name, {"json": {}})
    return http.request(route.method, path, headers=headers, **options)


def refused_with(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, str(answer.json()["error"]["code"])


def test_there_are_routes_and_each_demands_a_scope() -> None:
    assert len(ROUTES) > 40
    for route in ROUTES:
        assert route.operation, f"{route.name} is not in the OpenAPI document; if it may be public, add it to PUBLIC"
        assert route.scopes, f"{route.name} demands no scope; name ReaderDep, WriterDep or another one in it"


@each(ROUTES)
def test_a_key_that_is_missing_wrong_dead_or_lacks_the_scope_opens_nothing(
    http: httpx2.Client, mine: Tenant, route: Route
) -> None:
    for key in (None, "sk-manyicl-" + "x" * 43, *mine.dead_keys):
        assert refused_with(send(http, route, mine.ids, key)) == (401, "invalid_api_key")
    for scope in route.scopes:
        answer = send(http, route, mine.ids, mine.keys_without[scope])
        assert refused_with(answer) == (403, "insufficient_scope")
        assert repr(scope) in answer.json()["error"]["message"]


@each([route for route in ROUTES if route.pages_by_id])
def test_no_page_starts_after_a_thing_of_another_project(
    http: httpx2.Client, mine: Tenant, theirs: Tenant, route: Route
) -> None:
    assert route.path in AFTER, f"{route.name}: say in AFTER what it lists"
    kind = AFTER[route.path]
    assert send(http, route, mine.ids, mine.key, params={"after": theirs.ids[kind]}).status_code == 404
    own = send(http, route, mine.ids, mine.key, params={"after": mine.ids[kind]})
    assert own.status_code == 200, own.text


def test_a_page_starts_after_a_thing_that_was_deleted_unless_it_was_another_projects(
    http: httpx2.Client, mine: Tenant, theirs: Tenant
) -> None:
    with transaction() as session:
        friend = get_or_create_project(session, "friend").id
    hook = {"name": "x", "url": "https://example.org/x", "event_types": ["batch.failed"]}
    made: dict[str, dict[str, Any]] = {
        "/v1/files": {"files": {"file": b"x"}, "data": {"purpose": "user_data"}},
        "/v1/contexts": {"json": PASTED},
        "/v1/webhook_endpoints": {"json": hook},
        "/v1/fine_tuning/checkpoints/{model}/permissions": {"json": {"project_ids": [friend]}},
    }
    for path, body in made.items():
        deleted = []
        for tenant in (mine, theirs):
            key = {"authorization": f"Bearer {tenant.key}"}
            url = path.format(model=quote(tenant.ids["model"], safe=""))
            answer = http.post(url, headers=key, **body).json()
            deleted.append(answer["data"][0]["id"] if "data" in answer else answer["id"])
            assert http.delete(f"{url}/{deleted[-1]}", headers=key).status_code == 200
        pages = [http.get(url, headers=key, params={"after": id_}) for id_ in deleted]
        assert [page.status_code for page in pages] == [404, 200], path


@each(ROUTES)
def test_every_field_that_may_name_a_thing_is_known_here(route: Route) -> None:
    known = set(REFERENCES.get(route.name, {}))
    unknown = set(_fields(route.operation)) - known - NO_REFERENCES.get(route.name, set())
    assert not unknown, f"{route.name}: show in REFERENCES what {', '.join(sorted(unknown))} must not name"


@each([route for route in ROUTES if route.name in REFERENCES])
def test_no_body_names_a_thing_of_another_project(
    http: httpx2.Client, mine: Tenant, theirs: Tenant, route: Route
) -> None:
    nowhere = {name: id_[:-1] + "-" for name, id_ in theirs.ids.items()}
    for field, body in REFERENCES[route.name].items():
        told = []
        for named in (theirs.ids, nowhere):
            answer = send(http, route, mine.ids, mine.key, json=body(mine.ids, named))
            assert answer.status_code in {400, 404}, f"{field}: {answer.text}"
            assert "no " in answer.json()["error"]["message"], f"{field}: {answer.text}"
            told.append((answer.status_code, answer.json()["error"]["param"], len(answer.text)))
        assert told[0] == told[1], f"{field}: what is another project's is told apart from what is nowhere"


# The last one, for it deletes what is the caller's own.
@each([route for route in ROUTES if route.parameters])
def test_nothing_of_another_project_is_found(http: httpx2.Client, mine: Tenant, theirs: Tenant, route: Route) -> None:
    for owners in itertools.product((mine, theirs), repeat=len(route.parameters)):
        ids = mine.ids | {name: owner.ids[name] for name, owner in zip(route.parameters, owners, strict=True)}
        if ids != mine.ids:
            expected = 403 if "operator" in route.scopes else 404
            answer = send(http, route, ids, mine.key)
            assert answer.status_code == expected, f"{route.name} (a 400? give it a body in BODIES): {answer.text}"
    if "model" in route.parameters:
        for owner, expected in ((theirs, {404}), (mine, {200, 400})):
            answer = send(http, route, mine.ids | {"model": owner.ids["task_model"]}, mine.key)
            assert answer.status_code in expected, answer.text
    if "operator" not in route.scopes:
        # The same request about one's own things gets further: it was the project that was wrong.
        own = send(http, route, mine.ids, mine.key)
        assert own.status_code < 500 and own.status_code not in {401, 403, 404}, own.text


def _fields(operation: dict[str, Any]) -> Iterator[str]:
    """The names in query and body that look like those of things."""
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "query" and NAMES_A_THING.search(parameter["name"]):
            yield parameter["name"]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield from _properties(content["schema"], set())


def _properties(schema: Any, seen: set[str]) -> Iterator[str]:
    if isinstance(schema, list):
        for part in schema:
            yield from _properties(part, seen)
    if not isinstance(schema, dict):
        return
    reference = schema.get("$ref")
    if reference is not None and reference not in seen:
        seen.add(reference)
        yield from _properties(DOCUMENT["components"]["schemas"][reference.rsplit("/", 1)[-1]], seen)
    for name, inner in schema.get("properties", {}).items():
        if NAMES_A_THING.search(name) and not _is_upload(inner):
            yield name
        yield from _properties(inner, seen)
    for key in ("items", "anyOf", "allOf", "oneOf", "additionalProperties"):
        yield from _properties(schema.get(key), seen)


def _is_upload(schema: dict[str, Any]) -> bool:
    return schema.get("format") == "binary" or "contentMediaType" in schema
