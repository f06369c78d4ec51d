"""A worker that is told to stop (SIGTERM) hands over what it does: nothing is lost, counted or waited for."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import structlog
from openai import OpenAI

from manyicl_core.child_process import spawn
from manyicl_core.embedded import free_port
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.fair_queue import waiting_work
from manyicl_core.store.leases import claim_work
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Batch, Context, Evaluation, Job, Leased
from tests.api.test_evaluations import files
from tests.batches import await_batch, create_batch, request, result_lines
from tests.contexts import PASTED, create_context, get_context
from tests.evaluations import await_evaluation, create_evaluation, get_evaluation, list_events
from tests.faults.test_batch_sigkill import ANSWER_TOKENS, REQUESTS, completed
from tests.faults.test_evaluation_sigkill import MEASURED, measured
from tests.jobs import await_state, create_job, last_checkpoint, learnt
from tests.services import wait_for
from worker import measuring, shutdown
from worker.supervisor import run_job

_log = structlog.get_logger(__name__)

Start = Callable[[], subprocess.Popen[str]]

GRACE_SECONDS = 10
"""Docker's, after which it kills."""

STOPS = int(os.environ.get("PLANNED_STOPS", "2"))
"""By hand with more: ``PLANNED_STOPS=20 pytest -s``."""


@pytest.fixture(autouse=True)
def _leases_of_a_real_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    """So long that nothing here goes on because a lease has run out."""
    monkeypatch.setenv("MANYICL_LEASE_SECONDS", "600")


def stop(worker: subprocess.Popen[str], whole_group: bool = False) -> float:
    """Stop a worker as Docker does, or its whole group as ``manyicl up`` and systemd do; gives the seconds it took."""
    family = psutil.Process(worker.pid).children(recursive=True)
    began = time.monotonic()
    (os.killpg if whole_group else os.kill)(worker.pid, signal.SIGTERM)
    assert worker.wait(GRACE_SECONDS) == 0
    seconds = time.monotonic() - began
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive, "a process outlived its worker"
    return seconds


def losses(table: type[Leased], id_: str) -> int:
    with transaction() as session:
        return session.get_one(table, id_).infrastructure_failures


def steps(client: OpenAI, job_id: str) -> int:
    return len(client.get(f"/fine_tuning/jobs/{job_id}/metrics?limit=1000", cast_to=object)["data"])  # type: ignore[index]


def test_a_job_outlives_planned_stops_with_the_bytes_of_an_undisturbed_one(client: OpenAI, start_worker: Start) -> None:
    options = {"evaluate": False, "n_epochs": 60 if STOPS <= 3 else 240}
    worker = start_worker()
    undisturbed = create_job(client, **options)  # type: ignore[arg-type]
    assert await_state(client, undisturbed.id, "succeeded", "failed").status == "succeeded"

    job = create_job(client, **options)  # type: ignore[arg-type]
    seconds, resumed = [], []
    for number in range(STOPS):
        before = steps(client, job.id)
        began = time.monotonic()
        wait_for(lambda: steps(client, job.id) > before, "another step")  # noqa: B023
        resumed.append(time.monotonic() - began)
        seconds.append(stop(worker, whole_group=number % 2 == 1))
        assert last_checkpoint(job.id) > before, "the trainer left no checkpoint"
        worker = start_worker()
    assert await_state(client, job.id, "succeeded", "failed").status == "succeeded"

    assert learnt(job.id) == learnt(undisturbed.id)
    assert losses(Job, job.id) == 0
    events = client.fine_tuning.jobs.list_events(job.id, limit=1000).data
    assert {event.level for event in events} == {"info"}
    assert sum(event.message.startswith("The worker is being stopped") for event in events) == STOPS
    _log.info("stopped", times=STOPS, most_seconds_to_exit=max(seconds), most_seconds_to_a_step=max(resumed))


def test_a_worker_with_nothing_to_do_or_that_has_just_begun_stops(client: OpenAI, start_worker: Start) -> None:
    worker = start_worker()
    wait_for(lambda: psutil.Process(worker.pid).children(), "the pool")
    stop(worker)

    worker = start_worker()
    job = create_job(client, evaluate=False)
    await_state(client, job.id, "running")
    stop(worker)
    with transaction() as session:
        assert job.id in [row.id for row in waiting_work(session, [Job], 1000)], "the lease was not given up"
    start_worker()
    assert await_state(client, job.id, "succeeded", "failed").status == "succeeded"
    assert losses(Job, job.id) == 0


def test_an_evaluation_is_handed_over_with_what_it_has_measured(client: OpenAI, start_worker: Start) -> None:
    worker = start_worker()
    body = MEASURED | files(client)
    expected = await_evaluation(client, create_evaluation(client, **body)["id"], "succeeded", "failed")
    evaluation_id = create_evaluation(client, **body)["id"]
    wait_for(lambda: get_evaluation(client, evaluation_id)["progress"]["done"] >= 2, "two results")
    stop(worker, whole_group=True)
    before = get_evaluation(client, evaluation_id)
    assert (before["status"], before["progress"]["done"] >= 2) == ("running", True)
    start_worker()
    done = await_evaluation(client, evaluation_id, "succeeded", "failed")
    assert measured(done) == measured(expected)
    assert losses(Evaluation, evaluation_id) == 0
    assert "The worker is being stopped" in " ".join(event["message"] for event in list_events(client, evaluation_id))


def test_a_batch_and_a_context_are_handed_over(
    client: OpenAI, start_hosting: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("MANYICL_ENGINE_URL", f"http://127.0.0.1:{free_port()}")
        worker = start_hosting()
        context_id = create_context(client, **PASTED)["id"]
        wait_for(lambda: get_context(client, context_id)["shots"], "the demonstrations")
        stop(worker)
    worker = start_hosting()
    batch = create_batch(client, [request(str(number), max_tokens=ANSWER_TOKENS) for number in range(REQUESTS)])
    wait_for(lambda: completed(client, batch.id) > 0, "a chunk")
    stop(worker, whole_group=True)
    assert 0 < completed(client, batch.id) < REQUESTS
    start_hosting()
    done = await_batch(client, batch.id, "completed", "failed")
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": REQUESTS, "completed": REQUESTS, "failed": 0}
    assert len(result_lines(client, done.output_file_id)) == REQUESTS
    wait_for(lambda: get_context(client, context_id)["status"] == "succeeded", "the context")
    assert (losses(Batch, batch.id), losses(Context, context_id)) == (0, 0)


def test_a_checkpoint_that_the_store_does_not_take_does_not_keep_a_job(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploading, unblock = threading.Event(), threading.Event()
    put_folder = ArtifactStore.put_folder

    def hang(store: ArtifactStore, key: str, folder: Path) -> list[str]:
        uploading.set()
        assert unblock.wait(60)
        return put_folder(store, key, folder)

    monkeypatch.setattr(ArtifactStore, "put_folder", hang)
    job_id = create_job(client, evaluate=False, n_epochs=30).id
    run = threading.Thread(target=run_job, args=[job_id], daemon=True)
    run.start()
    try:
        assert uploading.wait(60)
        monkeypatch.setattr(shutdown, "is_asked", lambda: True)
        monkeypatch.setattr(shutdown, "is_due", lambda: True)

        def given_up() -> bool:
            with transaction() as session:
                return job_id in [row.id for row in waiting_work(session, [Job], 1000)]

        wait_for(given_up, "the job to be given up")
        with transaction() as session:
            claim = claim_work(session, Job, job_id, 60)
        assert claim is not None
        assert losses(Job, job_id) == 0
    finally:
        unblock.set()
    run.join(60)
    assert not run.is_alive()
    assert last_checkpoint(job_id) == 0, "what comes too late is refused"


def test_a_measurement_for_plans_does_not_keep_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "is_asked", lambda: True)
    process = spawn([sys.executable, "-c", "import time; time.sleep(600)"], dict(os.environ), subprocess.PIPE)
    try:
        with pytest.raises(measuring._PutOff):
            measuring._output_unless_put_off(process)
    finally:
        process.kill()
        process.communicate()
