import pytest
from openai import OpenAI
from sqlalchemy import update

from manyicl_core.contract.progress import CheckpointSaved, Trained
from manyicl_core.objects import open_store
from manyicl_core.settings import get_settings
from manyicl_core.store import hints
from manyicl_core.store.fair_queue import waiting_work
from manyicl_core.store.jobs import checkpoints, recorder
from manyicl_core.store.jobs.parts import Part
from manyicl_core.store.leases import Claim, LeaseLost, claim_work, renew_lease
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Job
from tests.jobs import create_job
from tests.services import Servers, wait_for
from worker.dispatcher import JOBS_WORK, send_missing_hints


def claim(job_id: str, lease_seconds: float = 60) -> Claim[Job] | None:
    with transaction() as session:
        return claim_work(session, Job, job_id, lease_seconds)


def expire(job_id: str) -> None:
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_expires_at=Job.created_at))


def test_a_job_is_claimed_once(client: OpenAI) -> None:
    job_id = create_job(client).id
    assert claim(job_id) == Claim(Job, job_id, 1)
    assert claim(job_id) is None


def test_a_silent_worker_loses_the_job_and_can_write_nothing(client: OpenAI) -> None:
    job_id = create_job(client).id
    stale = claim(job_id)
    assert stale is not None
    expire(job_id)
    fresh = claim(job_id)
    assert fresh == Claim(Job, job_id, 2)
    with pytest.raises(LeaseLost), transaction() as session:
        renew_lease(session, stale, 60)
    with pytest.raises(LeaseLost), transaction() as session:
        recorder.record_failure(session, stale, "engine_error", "late")
    with pytest.raises(LeaseLost), transaction() as session:
        recorder.record_success(session, stale, open_store(str(get_settings().storage_url)), [])
    with pytest.raises(LeaseLost), transaction() as session:
        checkpoints.record_checkpoint(
            session, stale, Part(0, 1, None), CheckpointSaved(step=1, folder="folder"), "key", [], "0" * 64
        )
    trained = Trained(step=1, folder="folder", peak_memory_bytes=1)
    with pytest.raises(LeaseLost), transaction() as session:
        checkpoints.record_trained(session, stale, Part(0, 1, None), trained, "0" * 64)
    assert client.fine_tuning.jobs.retrieve(job_id).status == "running"
    with transaction() as session:
        recorder.record_failure(session, fresh, "engine_error", "in time")
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.message) == ("engine_error", "in time")


def test_a_lost_worker_is_counted_and_a_first_claim_is_not(client: OpenAI) -> None:
    job_id = create_job(client).id
    for expected in range(3):
        claim(job_id)
        with transaction() as session:
            assert session.get_one(Job, job_id).infrastructure_failures == expected
        expire(job_id)


def test_a_cancelled_job_can_no_longer_be_claimed(client: OpenAI) -> None:
    job_id = create_job(client).id
    client.fine_tuning.jobs.cancel(job_id)
    assert claim(job_id) is None


def test_a_job_outlives_every_lost_hint(client: OpenAI) -> None:
    job_id = create_job(client).id
    with hints.get_celery().connection_for_write() as connection:
        connection.default_channel.client.flushall()
    with transaction() as session:
        assert job_id in [row.id for row in waiting_work(session, [Job], 1000)]
    assert send_missing_hints(hints.JOBS_QUEUE, JOBS_WORK) > 0
    assert hints.waiting_hints(hints.JOBS_QUEUE) > 0
    assert send_missing_hints(hints.JOBS_QUEUE, JOBS_WORK) == 0, "hints are not sent again while some wait"


def test_a_job_is_accepted_while_the_broker_is_away(client: OpenAI, servers: Servers) -> None:
    with hints.get_celery().connection_for_write() as connection:
        connection.default_channel.client.shutdown(nosave=True)
    wait_for(lambda: not servers.valkey.answers(), "the broker to be away")
    try:
        job = create_job(client)
        assert client.fine_tuning.jobs.retrieve(job.id).status == "queued"
    finally:
        servers.start_valkey()
    with transaction() as session:
        assert job.id in [row.id for row in waiting_work(session, [Job], 1000)]
