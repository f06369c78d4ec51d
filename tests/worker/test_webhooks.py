import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.webhooks import BatchCancelledWebhookEvent, FineTuningJobFailedWebhookEvent
from sqlalchemy import func, update

from manyicl_core import webhook_post
from manyicl_core.store.jobs import recorder
from manyicl_core.store.leases import claim_work
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Job, WebhookDelivery
from manyicl_core.store.webhooks import service
from manyicl_core.store.webhooks.outbox import BACK_OFF, claim_due
from tests.batches import create_batch, request
from tests.jobs import create_job
from tests.receiver import Receiver, receiving
from tests.services import wait_for
from worker.webhooks import deliver_due

JOB_EVENTS: list[Any] = ["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver_:
        yield receiver_


def fail(job_id: str) -> None:
    with transaction() as session:
        claim = claim_work(session, Job, job_id, 60)
        assert claim is not None
        recorder.record_failure(session, claim, "engine_error", "as a test wants it")


def make_due(endpoint_id: str) -> None:
    """Let the time of the next attempt come."""
    with transaction() as session:
        session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.next_attempt_at.is_not(None))
            .values(next_attempt_at=func.now())
        )


def log(client: OpenAI, endpoint_id: str) -> list[dict[str, Any]]:
    page: Any = client.get(f"/webhook_endpoints/{endpoint_id}/deliveries", cast_to=object)
    entries: list[dict[str, Any]] = page["data"]
    return entries


def test_the_end_of_a_job_arrives_signed_and_again_until_it_is_taken(client: OpenAI, receiver: Receiver) -> None:
    endpoint = client.webhooks.create(name="ci", url=receiver.url, event_types=JOB_EVENTS)
    assert endpoint.signing_secret.startswith("whsec_")
    job = create_job(client, evaluate=False)
    fail(job.id)
    receiver.statuses = [500]
    deliver_due()
    [entry] = log(client, endpoint.id)
    assert (entry["status"], entry["attempts"], entry["response_status"]) == ("pending", 1, 500)
    assert entry["next_attempt_at"] > entry["created_at"]
    make_due(endpoint.id)
    deliver_due()
    [entry] = log(client, endpoint.id)
    assert (entry["status"], entry["attempts"], entry["error"]) == ("delivered", 2, None)
    make_due(endpoint.id)
    deliver_due()
    (first, body), (second, again) = receiver.received
    assert first["webhook-id"] == second["webhook-id"] == entry["event_id"]
    assert body == again
    event = client.webhooks.unwrap(body, second, secret=endpoint.signing_secret)
    assert isinstance(event, FineTuningJobFailedWebhookEvent)
    assert event.data.id == job.id
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body + b" ", second, secret=endpoint.signing_secret)


def test_what_a_dead_sender_had_taken_is_sent_by_another(client: OpenAI, receiver: Receiver) -> None:
    endpoint = client.webhooks.create(name="ci", url=receiver.url, event_types=JOB_EVENTS)
    client.fine_tuning.jobs.cancel(create_job(client, evaluate=False).id)
    with transaction() as session:
        taken = [attempt.url for attempt in claim_due(session, (), 100)]
    assert receiver.url in taken
    deliver_due()
    assert receiver.received == [], "it was not due while the first sender might still have been at it"
    make_due(endpoint.id)
    deliver_due()
    [(_, body)] = receiver.received
    assert json.loads(body)["type"] == "fine_tuning.job.cancelled"


def test_a_receiver_that_does_not_answer_keeps_no_other_waiting(
    client: OpenAI, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("_STEP_SECONDS", "TOTAL_SECONDS"):
        monkeypatch.setattr(webhook_post, limit, 60.0)
    with receiving() as hanging, ThreadPoolExecutor(1) as thread:
        hanging.answers.clear()
        for url in (hanging.url, receiver.url):
            endpoint = client.webhooks.create(name="ci", url=url, event_types=JOB_EVENTS)
        for _ in range(2):
            client.fine_tuning.jobs.cancel(create_job(client, evaluate=False).id)
        sending = thread.submit(deliver_due)
        wait_for(lambda: hanging.received, "the first event")
        # One more while they are at it.
        client.fine_tuning.jobs.cancel(create_job(client, evaluate=False).id)
        wait_for(lambda: [entry["status"] for entry in log(client, endpoint.id)] == ["delivered"] * 3, "them", 10)
        assert len(hanging.received) == 1
        hanging.answers.set()
        sending.result()
        assert len(hanging.received) == 3


def test_what_is_due_longest_is_taken_first(client: OpenAI, receiver: Receiver) -> None:
    made = [client.webhooks.create(name="ci", url=receiver.url, event_types=JOB_EVENTS) for _ in range(2)]
    endpoints = sorted(endpoint.id for endpoint in made)
    client.fine_tuning.jobs.cancel(create_job(client, evaluate=False).id)
    with transaction() as session:
        for days, endpoint_id in enumerate(endpoints, start=1):
            its = WebhookDelivery.endpoint_id == endpoint_id
            session.execute(update(WebhookDelivery).where(its).values(next_attempt_at=func.now() - timedelta(days)))
        taken = [claim_due(session, (), 1)[0].endpoint_id for _ in endpoints]
    assert taken == endpoints[::-1]


def test_the_end_of_a_batch_arrives(client: OpenAI, receiver: Receiver) -> None:
    endpoint = client.webhooks.create(name="ci", url=receiver.url, event_types=["batch.cancelled"])
    batch = create_batch(client, [request("a")])
    client.batches.cancel(batch.id)
    deliver_due()
    [(headers, body)] = receiver.received
    event = client.webhooks.unwrap(body, headers, secret=endpoint.signing_secret)
    assert isinstance(event, BatchCancelledWebhookEvent)
    assert event.data.id == batch.id


def test_an_event_that_nobody_takes_is_given_up_in_the_end(client: OpenAI, receiver: Receiver) -> None:
    endpoint = client.webhooks.create(name="ci", url=receiver.url, event_types=JOB_EVENTS)
    client.fine_tuning.jobs.cancel(create_job(client, evaluate=False).id)
    receiver.statuses = [503] * (len(BACK_OFF) + 1)
    for _ in receiver.statuses[:]:
        make_due(endpoint.id)
        deliver_due()
    [entry] = log(client, endpoint.id)
    assert (entry["status"], entry["attempts"]) == ("failed", len(BACK_OFF) + 1)


def test_only_what_was_asked_for_is_sent_and_nothing_of_a_change_that_was_undone(
    client: OpenAI, receiver: Receiver
) -> None:
    endpoint = client.webhooks.create(name="ci", url=receiver.url, event_types=["fine_tuning.job.succeeded"])
    job = create_job(client, evaluate=False)
    fail(job.id)
    assert log(client, endpoint.id) == []
    client.webhooks.update(endpoint.id, event_types=JOB_EVENTS)
    other = create_job(client, evaluate=False)
    with transaction() as session:
        claim = claim_work(session, Job, other.id, 60)
        assert claim is not None
        recorder.record_cancelled(session, claim)
        session.rollback()
    assert log(client, endpoint.id) == []


def test_an_endpoint_is_kept_by_the_unmodified_client(client: OpenAI, receiver: Receiver) -> None:
    assert set(JOB_EVENTS) < set(client.webhooks.event_types.list().data)
    endpoint = client.webhooks.create(name="a", url=receiver.url, event_types=["batch.completed"])
    assert client.webhooks.update(endpoint.id, name="b").name == "b"
    kept = client.webhooks.retrieve(endpoint.id)
    assert (kept.name, kept.event_types, kept.url) == ("b", ["batch.completed"], receiver.url)
    assert kept.model_extra == {}, "the secret is told once"
    assert [one.id for one in client.webhooks.list()] == [endpoint.id]

    rotated = client.webhooks.rotate_secret(endpoint.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret != endpoint.signing_secret
    assert client.webhooks.test(endpoint.id, event_type="batch.completed").status_code == 200
    [(headers, body)] = receiver.received
    for secret in (endpoint.signing_secret, rotated.signing_secret):
        assert client.webhooks.unwrap(body, headers, secret=secret).type == "batch.completed"

    client.webhooks.rotate_secret(endpoint.id)
    client.webhooks.test(endpoint.id, event_type="batch.failed")
    headers, body = receiver.received[-1]
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body, headers, secret=rotated.signing_secret)

    assert client.webhooks.delete(endpoint.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.webhooks.retrieve(endpoint.id)


def test_an_endpoint_is_made_once_however_often_the_request_comes(client: OpenAI) -> None:
    headers = {"Idempotency-Key": "mine"}
    made = [
        client.webhooks.create(
            name="a", url="https://example.org/", event_types=["batch.failed"], extra_headers=headers
        )
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert len(client.webhooks.list().data) == 1


def test_endpoints_made_at_once_do_not_share_the_last_place(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_ENDPOINTS", 3)

    def admitted(_: int) -> bool:
        try:
            client.webhooks.create(name="a", url="https://example.org/", event_types=["batch.failed"])
        except openai.BadRequestError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(admitted, range(8))) == 3


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"url": "ftp://example.org"}, "url"),
        ({"url": ""}, "url"),
        ({"event_types": []}, "event_types"),
        ({"event_types": ["video.completed"]}, "event_types.0"),
        ({"name": ""}, "name"),
    ],
)
def test_a_wrong_field_of_an_endpoint_is_named(client: OpenAI, changes: dict[str, Any], param: str) -> None:
    body: dict[str, Any] = {"name": "a", "url": "https://example.org/hook", "event_types": ["batch.failed"]}
    with pytest.raises(openai.BadRequestError) as refused:
        client.webhooks.create(**(body | changes))
    assert refused.value.param == param
