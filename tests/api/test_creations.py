import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai import OpenAI
from starlette.requests import ClientDisconnect

from api import creation
from api.app import create_app
from api.creation import Once
from manyicl_core.ids import new_id
from manyicl_core.store import creations
from manyicl_core.store.creations import CreationRequest, earlier_answer
from manyicl_core.store.files.schemas import FileObject
from manyicl_core.store.projects.service import get_or_create_project
from manyicl_core.store.session import transaction
from tests.batches import request, upload_requests
from tests.contexts import PASTED
from tests.jobs import example_lines, upload
from tests.services import BASE_MODEL

KEY = {"Idempotency-Key": "mine"}
RETRY = {"x-stainless-retry-count": "1"}
LINE = b'{"task": "t", "input": "a", "output": "b"}\n'

CREATE_NOTHING = (
    "/v1/fine_tuning/jobs/plan",
    "/v1/chat/completions",
    "/v1/classifications",
    "/v1/completions",
    "/v1/responses",
    "/v1/fine_tuning/checkpoints/{model}/permissions",  # there already: nothing is given twice
    "/v1/webhook_endpoints/{endpoint_id}",
)
# A project's name is unique, and a key's secret is kept nowhere, so neither is answered a second time.
PROJECTS = "/v1/organization/projects"


def create_file(client: OpenAI, headers: dict[str, str], content: bytes = LINE, name: str = "a.jsonl") -> str:
    return client.files.create(file=(name, content), purpose="fine-tune", extra_headers=headers).id


def file_ids(client: OpenAI) -> set[str]:
    return {file.id for file in client.files.list()}


def create(client: OpenAI, path: str, body: dict[str, Any], headers: dict[str, str]) -> openai.BaseModel:
    return client.post(path, body=body, cast_to=openai.BaseModel, options={"headers": headers})


def test_every_route_that_creates_takes_a_key() -> None:
    for path, methods in create_app().openapi()["paths"].items():
        suffixes = ("/cancel", "/pause", "/resume", "/complete", "/rotate_secret", "/test")
        changes = path.endswith(suffixes) or path.startswith(PROJECTS)
        if "post" in methods and path not in CREATE_NOTHING and not changes:
            names = {parameter["name"] for parameter in methods["post"].get("parameters", [])}
            assert {"idempotency-key", "x-stainless-retry-count"} <= names, path


def test_the_same_key_makes_one_of_everything(client: OpenAI) -> None:
    training, queries = upload(client, example_lines(0, 6)), upload(client, example_lines(100, 3))
    batch = upload_requests(client, [request("a")])
    bodies: dict[str, dict[str, Any]] = {
        "/fine_tuning/jobs": {"model": BASE_MODEL, "training_file": training},
        "/contexts": PASTED,
        "/evaluations": {"models": [BASE_MODEL], "training_file": training, "validation_file": queries},
        "/batches": {"input_file_id": batch, "endpoint": "/v1/chat/completions", "completion_window": "24h"},
    }
    for path, body in bodies.items():
        headers = {"Idempotency-Key": path}
        first, second = create(client, path, body, headers), create(client, path, body, headers)
        assert first == second, path
        assert create(client, path, body, {}).to_dict()["id"] != first.to_dict()["id"], path


def test_many_at_once_with_one_key_make_one_file(client: OpenAI) -> None:
    with ThreadPoolExecutor(8) as threads:
        ids = set(threads.map(lambda _: create_file(client, KEY), range(8)))
    assert ids == file_ids(client)
    assert len(ids) == 1


def test_a_key_with_another_body_or_route_is_refused_by_its_name(client: OpenAI) -> None:
    made = create_file(client, KEY)
    calls: list[Callable[[], object]] = [
        lambda: create_file(client, KEY, LINE * 2),
        lambda: create_file(client, KEY, name="b.jsonl"),
        lambda: create(client, "/contexts", PASTED, KEY),
    ]
    for call in calls:
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            call()
        assert (refused.value.param, refused.value.code) == ("Idempotency-Key", "idempotency_key_reused")
    assert file_ids(client) == {made}
    assert client.get("/contexts", cast_to=openai.BaseModel).to_dict()["data"] == []


def test_a_retry_gets_the_answer_that_was_lost_and_a_new_request_makes_anew(client: OpenAI) -> None:
    first = create_file(client, {})
    lost = create_file(client, {})
    assert lost != first
    again = client.files.with_raw_response.create(
        file=("a.jsonl", LINE), purpose="fine-tune", extra_headers={"x-stainless-retry-count": "2"}
    )
    assert again.parse().id == lost
    assert again.headers["idempotent-replayed"] == "true"
    assert file_ids(client) == {first, lost}


def test_a_retry_whose_first_try_left_nothing_creates(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("between the file and its answer")

    with monkeypatch.context() as crashing:
        crashing.setattr(creation, "record_answer", crash)
        for headers in ({}, KEY):
            with pytest.raises(openai.InternalServerError):
                create_file(client, headers)
    assert file_ids(client) == set()
    made = create_file(client, RETRY)
    assert file_ids(client) == {made}
    assert create_file(client, RETRY | KEY) != made


def test_a_retry_is_not_answered_with_what_was_deleted_or_cancelled(client: OpenAI) -> None:
    training, queries = upload(client, example_lines(0, 6)), upload(client, example_lines(100, 3))
    batch = upload_requests(client, [request("a")])
    hook = {"name": "x", "url": "https://example.org/x", "event_types": ["batch.failed"]}
    sent = {"bytes": 1, "filename": "a", "mime_type": "text/plain", "purpose": "user_data"}
    cancelled: dict[str, dict[str, Any]] = {
        "/fine_tuning/jobs": {"model": BASE_MODEL, "training_file": training},
        "/evaluations": {"models": [BASE_MODEL], "training_file": training, "validation_file": queries},
        "/batches": {"input_file_id": batch, "endpoint": "/v1/chat/completions", "completion_window": "24h"},
        "/uploads": sent,
    }
    deleted: dict[str, dict[str, Any]] = {"/contexts": PASTED, "/webhook_endpoints": hook}
    for path, body in (cancelled | deleted).items():
        made = create(client, path, body, {}).to_dict()["id"]
        assert create(client, path, body, RETRY).to_dict()["id"] == made
        if path in cancelled:
            client.post(f"{path}/{made}/cancel", cast_to=object)
        else:
            client.delete(f"{path}/{made}", cast_to=object)
        assert create(client, path, body, RETRY).to_dict()["id"] != made, path
    made = create_file(client, {})
    client.files.delete(made)
    assert create_file(client, RETRY) != made


def test_the_retry_of_a_refused_request_is_not_taken_for_an_older_equal_one(client: OpenAI) -> None:
    body = {
        "input_file_id": upload_requests(client, [request("a")]),
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    create(client, "/batches", body, {})
    client.files.delete(body["input_file_id"])
    for headers in ({}, RETRY):
        with pytest.raises(openai.NotFoundError):
            create(client, "/batches", body, headers)


def test_a_repeat_waits_for_the_first_and_then_says_to_try_again(
    client: OpenAI, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creations, "_WAIT", "50ms")
    begun, end = threading.Event(), threading.Event()
    forward = creation.record_answer

    def slowly(*arguments: Any) -> None:
        begun.set()
        assert end.wait(30)
        forward(*arguments)

    monkeypatch.setattr(creation, "record_answer", slowly)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(create_file, client, {})
        assert begun.wait(30)
        with pytest.raises(openai.ConflictError) as refused:
            create_file(client, RETRY)
        assert refused.value.code == "request_in_progress"
        assert int(refused.value.response.headers["retry-after-ms"]) > 0
        assert "x-should-retry" not in refused.value.response.headers
        end.set()
    assert create_file(client, RETRY) == first.result()
    assert file_ids(client) == {first.result()}


@pytest.mark.usefixtures("installation")
def test_a_request_that_nobody_waits_for_any_more_creates_nothing() -> None:
    with transaction() as session:
        project = get_or_create_project(session, "gone").id

    def make(_: object) -> FileObject:
        raise AssertionError("made")

    with pytest.raises(ClientDisconnect):
        Once(project, "/v1/files", None, False, lambda: True).create("content", make)


@pytest.mark.usefixtures("installation")
def test_an_answer_is_its_projects_own() -> None:
    with transaction() as session:
        projects = [get_or_create_project(session, name).id for name in ("one", "other")]
    for project in projects:
        with transaction() as session:
            request_ = CreationRequest(project, "f", "k", False)
            assert earlier_answer(session, request_) is None
            creations.record_answer(session, request_, project, new_id("file-"))
    for project in projects:
        with transaction() as session:
            assert earlier_answer(session, CreationRequest(project, "f", "k", False)) == project
            assert earlier_answer(session, CreationRequest(project, "f", None, True)) is None
