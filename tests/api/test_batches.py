import threading
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Batch as BatchOfClient
from sqlalchemy import func, update

from manyicl_core.engines.client import EngineClient
from manyicl_core.objects import ArtifactStore, open_store
from manyicl_core.settings import get_settings
from manyicl_core.store.batches import recorder
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Batch
from tests.batches import create_batch, request, result_lines, upload_requests
from tests.contexts import PASTED, create_context
from tests.fake_engine import USAGE, FakeEngine, refusal, running
from tests.services import BASE_MODEL, on_both_stores
from worker import batch_answers, batches
from worker.batches import run_batch
from worker.context_building import build_context


def run(client: OpenAI, batch_id: str) -> BatchOfClient:
    """What a hosting worker does with the batch's hint."""
    run_batch(batch_id)
    return client.batches.retrieve(batch_id)


def expire_lease(batch_id: str) -> None:
    change(batch_id, lease_expires_at=Batch.created_at)


def change(batch_id: str, **values: Any) -> None:
    with transaction() as session:
        session.execute(update(Batch).where(Batch.id == batch_id).values(**values))


def work_files(batch_id: str) -> list[str]:
    return open_store(str(get_settings().storage_url)).names(f"batches/{batch_id}")


@on_both_stores
def test_a_batch_lives_from_upload_to_results(client: OpenAI) -> None:
    lines = [request("a"), request("b", messages=[{"role": "user", "content": "word " * 5000}]), request("c")]
    created = create_batch(client, lines, metadata={"run": "7"})
    assert (created.status, created.object, created.metadata) == ("validating", "batch", {"run": "7"})
    assert created.expires_at == created.created_at + 24 * 3600
    # It has a copy of its own.
    client.files.delete(created.input_file_id)

    done = run(client, created.id)
    assert (done.status, done.model, done.errors) == ("completed", BASE_MODEL, None)
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": 3, "completed": 2, "failed": 1}
    assert done.in_progress_at and done.finalizing_at and done.completed_at
    assert done.output_file_id and done.error_file_id
    assert client.files.retrieve(done.output_file_id).purpose == "batch_output"

    output, errors = result_lines(client, done.output_file_id), result_lines(client, done.error_file_id)
    assert (set(output), set(errors)) == ({"a", "c"}, {"b"})
    answers = [
        client.chat.completions.create(**line["body"]).choices[0].message.content for line in (lines[0], lines[2])
    ]
    told = [output[custom_id]["response"]["body"]["choices"][0]["message"]["content"] for custom_id in "ac"]
    assert told == answers
    assert output["a"]["response"]["status_code"] == 200
    assert (output["a"]["error"], output["a"]["id"][:10]) == (None, "batch_req_")
    assert errors["b"]["response"]["status_code"] == 400
    assert errors["b"]["response"]["body"]["error"]["code"] == "context_length_exceeded"
    assert done.usage is not None
    tokens = sum(output[custom_id]["response"]["body"]["usage"]["total_tokens"] for custom_id in "ac")
    assert done.usage.total_tokens == tokens > 0
    assert work_files(created.id) == []

    assert [batch.id for batch in client.batches.list()] == [created.id]
    with pytest.raises(openai.ConflictError, match="completed"):
        client.batches.cancel(created.id)


def test_completions_are_those_that_a_request_gets(client: OpenAI) -> None:
    body = {"model": BASE_MODEL, "prompt": ["one two", "three"], "max_tokens": 4, "temperature": 0, "logprobs": 1}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}
    done = run(client, create_batch(client, [line], endpoint="/v1/completions").id)
    assert done.status == "completed"
    [result] = result_lines(client, done.output_file_id).values()
    answer, direct = result["response"]["body"], client.completions.create(**body).to_dict()
    # How much was compiled before may differ between the two.
    assert answer["choices"] == direct["choices"]
    assert answer["usage"]["completion_tokens"] == 8


def test_classifications_wait_for_their_context_and_for_a_full_engine(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = create_context(client, **PASTED)
    body = {"model": context["id"], "input": ["thing 1", "thing 2"]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/classifications", "body": body}
    batch = create_batch(client, [line], endpoint="/v1/classifications")
    scores = {"scores": [[-1.0, -3.0], [-4.0, -2.0]], "usage": USAGE}
    full = refusal(429, "full", "engine_overloaded", {"retry-after-ms": "1"})
    fake = FakeEngine(answers=[full, full, scores])
    build = threading.Thread(target=build_context, args=[context["id"]])

    def open_fake(*_: Any) -> EngineClient:
        # The lines are checked by now, and the context is only made from here on.
        build.start()
        return EngineClient(url)

    with running(fake) as url:
        monkeypatch.setattr(batches, "open_engines", open_fake)
        done = run(client, batch.id)
    build.join()
    assert done.status == "completed"
    [result] = result_lines(client, done.output_file_id).values()
    assert [entry["label"] for entry in result["response"]["body"]["data"]] == ["red", "dark blue"]
    asked = fake.bodies("/v1/label_scores")
    assert len(asked) == 3
    assert {body["priority"] for body in asked} == {1}


def test_pages_of_batches_are_newest_first(client: OpenAI) -> None:
    ids = [create_batch(client, [request("a")]).id for _ in range(3)]
    assert [batch.id for batch in client.batches.list(limit=2)] == ids[::-1]


def test_wrong_lines_fail_the_batch_before_anything_is_answered(client: OpenAI) -> None:
    lines = [request("a"), request("a"), request("b", model="gpt-99"), request("c", temperature=9)]
    failed = run(client, create_batch(client, lines).id)
    assert (failed.status, failed.output_file_id) == ("failed", None)
    assert failed.errors is not None and failed.errors.data is not None
    assert [(error.line, error.code, error.param) for error in failed.errors.data] == [
        (2, "duplicate_custom_id", "custom_id"),
        (3, "model_not_found", "body.model"),
        (4, "invalid_request", "body.temperature"),
    ]
    assert work_files(failed.id) == []


def test_a_line_is_not_wrong_because_another_one_over_the_same_context_is(client: OpenAI) -> None:
    context = create_context(client, **PASTED)["id"]
    wrong = [{"task": "support"}, {"context": {"examples": PASTED["examples"]}}]
    lines = [request(str(number), model=context, manyicl=manyicl) for number, manyicl in enumerate(wrong)]
    right = request("right", model=context)
    for order in ([right, *lines], [*lines, right]):
        failed = run(client, create_batch(client, order).id)
        assert failed.errors is not None and failed.errors.data is not None
        assert [(error.line, error.param) for error in failed.errors.data] == [
            (number, "body.manyicl") for number, line in enumerate(order, start=1) if line is not right
        ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"input_file_id": "file-gone"}, "input_file_id"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 60}}, "output_expires_after.seconds"),
        ({"metadata": {"key": "v" * 513}}, "metadata.key"),
        ({"priority": 0}, "priority"),
    ],
)
def test_a_wrong_field_is_named(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    body = {
        "input_file_id": upload_requests(client, [request("a")]),
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        **fields,
    }
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
        client.post("/batches", body=body, cast_to=object)
    assert refused.value.param == param


def test_a_file_of_another_purpose_is_refused(client: OpenAI) -> None:
    file = client.files.create(file=("a.jsonl", b"{}"), purpose="user_data")
    with pytest.raises(openai.BadRequestError, match="'user_data'"):
        client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")


def test_a_waiting_batch_is_cancelled_at_once(client: OpenAI) -> None:
    batch = create_batch(client, [request("a")])
    cancelled = client.batches.cancel(batch.id)
    assert (cancelled.status, cancelled.output_file_id) == ("cancelled", None)
    assert cancelled.cancelling_at and cancelled.cancelled_at
    assert run(client, batch.id).status == "cancelled"
    assert work_files(batch.id) == []


def test_a_batch_whose_window_is_over_tells_so_in_every_line(client: OpenAI) -> None:
    batch = create_batch(client, [request("a"), request("b")])
    change(batch.id, expires_at=func.now())
    expired = run(client, batch.id)
    assert (expired.status, expired.output_file_id) == ("expired", None)
    assert expired.expired_at is not None
    errors = result_lines(client, expired.error_file_id)
    assert {custom_id: line["error"]["code"] for custom_id, line in errors.items()} == dict.fromkeys(
        "ab", "batch_expired"
    )


class Killed(BaseException):
    """Stands in for the end of the process: nothing catches it."""


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (recorder, "record_checked"),
        (recorder, "record_chunk"),
        (recorder, "record_finalizing"),
        (batches, "stored_file"),
        (recorder, "record_success"),
        (ArtifactStore, "put"),
    ],
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_batch_that_is_lost_anywhere_ends_with_every_line_once(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, after: bool
) -> None:
    batch = create_batch(client, [request(str(number)) for number in range(12)])
    monkeypatch.setattr(batch_answers, "_CHUNK_RESULTS", 5)
    original = getattr(where, name)
    calls = [0]

    def killed(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2 or name not in ("record_chunk", "put"):
            if after:
                original(*arguments)
            raise Killed
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, killed)
        with pytest.raises(Killed):
            run_batch(batch.id)
    assert client.batches.retrieve(batch.id).status in ("validating", "in_progress", "finalizing")

    expire_lease(batch.id)
    done = run(client, batch.id)
    assert done.status == "completed"
    assert set(result_lines(client, done.output_file_id)) == {str(number) for number in range(12)}
    assert done.error_file_id is None
    assert len(client.files.list(purpose="batch_output").data) == 1
    assert work_files(batch.id) == []


def test_a_batch_whose_worker_is_always_lost_fails_and_keeps_what_is_answered(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = create_batch(client, [request(str(number)) for number in range(6)])
    monkeypatch.setattr(batch_answers, "_CHUNK_RESULTS", 4)

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "record_finalizing", killed)
        with pytest.raises(Killed):
            run_batch(batch.id)
    change(batch.id, lease_expires_at=Batch.created_at, infrastructure_failures=4)
    failed = run(client, batch.id)
    assert failed.status == "failed"
    assert failed.errors is not None and failed.errors.data is not None
    assert failed.errors.data[0].code == "worker_lost"
    assert len(result_lines(client, failed.output_file_id)) == 6
