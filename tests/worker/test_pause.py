import subprocess
from collections.abc import Callable

import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from manyicl_core.contract.progress import CheckpointSaved, Started, StepMetrics
from manyicl_core.objects import open_store
from manyicl_core.settings import get_settings
from manyicl_core.store.fair_queue import waiting_work
from manyicl_core.store.jobs import recorder
from manyicl_core.store.jobs.checkpoints import record_checkpoint
from manyicl_core.store.jobs.parts import Part
from manyicl_core.store.leases import Claim, LeaseLost, claim_work, renew_lease
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Evaluation, Job
from tests.jobs import await_state, create_job, learnt, recorded_checkpoints
from tests.services import wait_for

ALL = Part(0, 1, None)
SHA256 = "0" * 64


def claimed(job_id: str) -> Claim[Job]:
    with transaction() as session:
        claim = claim_work(session, Job, job_id, 60)
    assert claim is not None
    return claim


def told_status(job: FineTuningJob) -> tuple[str, str]:
    """OpenAI's word for where the job stands, and ours."""
    assert job.model_extra is not None
    return job.status, job.model_extra["manyicl"]["status"]


def ended(job_id: str) -> None:
    claim = claimed(job_id)
    with transaction() as session:
        recorder.record_failure(session, claim, "engine_error", "over")


def refusal(call: Callable[[str], object], job_id: str) -> str:
    with pytest.raises(openai.ConflictError) as refused:
        call(job_id)
    assert refused.value.response.headers["x-should-retry"] == "false"
    return refused.value.message


def test_a_waiting_job_leaves_the_queue_and_comes_back_to_its_place(client: OpenAI) -> None:
    jobs = client.fine_tuning.jobs
    first, second = create_job(client).id, create_job(client).id
    assert told_status(jobs.pause(first)) == ("queued", "paused")
    with transaction() as session:
        assert first not in [row.id for row in waiting_work(session, [Job], 1000)]
        assert claim_work(session, Job, first, 60) is None
    assert told_status(jobs.resume(first)) == ("queued", "queued")
    with transaction() as session:
        waiting = [row.id for row in waiting_work(session, [Job], 1000)]
    assert waiting.index(first) < waiting.index(second)


def test_a_running_job_is_taken_from_its_worker_and_its_return_counts_as_no_loss(client: OpenAI) -> None:
    job_id = create_job(client).id
    stale = claimed(job_id)
    assert told_status(client.fine_tuning.jobs.pause(job_id)) == ("queued", "paused")
    with pytest.raises(LeaseLost), transaction() as session:
        renew_lease(session, stale, 60)
    with pytest.raises(LeaseLost), transaction() as session:
        recorder.record_failure(session, stale, "engine_error", "late")
    client.fine_tuning.jobs.resume(job_id)
    assert claimed(job_id).fence > stale.fence
    with transaction() as session:
        assert session.get_one(Job, job_id).infrastructure_failures == 0


def test_pausing_and_resuming_twice_is_harmless(client: OpenAI) -> None:
    jobs = client.fine_tuning.jobs
    job_id = create_job(client).id
    assert jobs.resume(job_id).status == "queued"
    assert [told_status(jobs.pause(job_id)) for _ in range(2)] == [("queued", "paused")] * 2
    assert [jobs.resume(job_id).status for _ in range(2)] == ["queued", "queued"]
    claimed(job_id)
    assert jobs.resume(job_id).status == "running"
    told = [event.message.split(";")[0] for event in jobs.list_events(job_id).data]
    changes = [message for message in told if message.startswith("The job is")]
    assert changes == ["The job is resumed and waits for a worker", "The job is paused"]


def test_what_is_over_or_being_cancelled_can_be_neither_paused_nor_resumed(client: OpenAI) -> None:
    jobs = client.fine_tuning.jobs
    over, cancelled = create_job(client).id, create_job(client).id
    ended(over)
    assert "over (failed)" in refusal(jobs.pause, over)
    assert "over (failed)" in refusal(jobs.resume, over)
    claimed(cancelled)
    jobs.cancel(cancelled)
    assert "being cancelled" in refusal(jobs.pause, cancelled)
    with pytest.raises(openai.NotFoundError):
        jobs.pause("ftjob-missing")


def test_cancelling_a_paused_job_takes_its_evaluation_and_its_checkpoints_along(client: OpenAI) -> None:
    job_id = create_job(client).id
    claim = claimed(job_id)
    store = open_store(str(get_settings().storage_url))
    store.put(f"jobs/{job_id}/checkpoints/1", b"")
    key = f"jobs/{job_id}/checkpoints"
    step = StepMetrics(
        step=1,
        loss=1,
        token_accuracy=0,
        learning_rate=1,
        gradient_norm=1,
        tokens=1,
        answers=1,
        seconds=1,
        loss_by_answer={},
        accuracy_by_answer={},
    )
    with transaction() as session:
        job = session.get_one(Job, job_id)
        started = Started(step=0, steps=9, tokens=9, answers=9, target_tokens=9, dtype="float32")
        recorder.record_started(session, claim, ALL, started)
        recorder.record_step(session, claim, ALL, step)
        record_checkpoint(session, claim, ALL, CheckpointSaved(step=1, folder="f"), key, ["1"], SHA256)
        evaluation = Evaluation(
            id=f"eval-{job_id}",
            project_id=job.project_id,
            job_id=job_id,
            state="running",
            base_model=job.base_model,
            models=[],
            dataset=job.dataset,
            tasks=[],
            options={"forgetting": False},
            seed=0,
        )
        session.add(evaluation)
    paused = client.fine_tuning.jobs.pause(job_id)
    assert paused.estimated_finish is None
    assert len(client.fine_tuning.jobs.checkpoints.list(job_id).data) == 1
    assert client.fine_tuning.jobs.cancel(job_id).status == "cancelled"
    assert client.fine_tuning.jobs.checkpoints.list(job_id).data == []
    assert store.names(key) == []
    with transaction() as session:
        assert session.get_one(Evaluation, evaluation.id).state == "cancelled"


def test_a_paused_job_frees_its_worker_and_ends_with_the_bytes_of_an_undisturbed_one(
    client: OpenAI, start_worker: Callable[[], subprocess.Popen[str]]
) -> None:
    start_worker()
    paused = create_job(client, evaluate=False, n_epochs=60)
    wait_for(lambda: recorded_checkpoints(paused.id) >= 2, "two checkpoints")
    client.fine_tuning.jobs.pause(paused.id)
    # The same job again, on the only worker there is.
    undisturbed = create_job(client, evaluate=False, n_epochs=60)
    assert await_state(client, undisturbed.id, "succeeded", "failed").status == "succeeded"
    assert told_status(client.fine_tuning.jobs.retrieve(paused.id)) == ("queued", "paused")
    client.fine_tuning.jobs.resume(paused.id)
    assert await_state(client, paused.id, "succeeded", "failed").status == "succeeded"
    assert learnt(paused.id) == learnt(undisturbed.id)
    events = [event.message for event in client.fine_tuning.jobs.list_events(paused.id, limit=1000)]
    assert any(" goes on from step " in message for message in events)
