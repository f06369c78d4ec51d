import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from openai import OpenAI
from sqlalchemy import select

from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Checkpoint, Job
from tests.jobs import await_state, create_job, last_checkpoint, learnt, recorded_checkpoints
from tests.services import wait_for

StartWorker = Callable[[], subprocess.Popen[str]]

EPOCHS = 60


def kill_worker(worker: subprocess.Popen[str]) -> None:
    """SIGKILL the worker's main process alone; the kernel must take the rest along."""
    family = psutil.Process(worker.pid).children(recursive=True)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive, "a trainer outlived its worker"


def kill_trainer(worker: subprocess.Popen[str]) -> None:
    """SIGKILL the trainer alone."""
    for process in psutil.Process(worker.pid).children(recursive=True):
        if "manyicl_core.training" in process.cmdline():
            process.kill()


def trained_tasks(job_id: str) -> int:
    with transaction() as session:
        return len(session.scalars(select(Checkpoint.step).where(Checkpoint.job_id == job_id, Checkpoint.final)).all())


PLAIN: dict[str, Any] = {"evaluate": False, "n_epochs": EPOCHS}
DEDICATED = PLAIN | {"objective": "dedicated", "dedicated_objective": "many_icl"}
# A rate so high that the best measurement is soon behind.
PATIENT: dict[str, Any] = {
    "learning_rate_multiplier": 20.0,
    "n_epochs": 4 * EPOCHS,
    "optimizer": {"schedule": "constant", "warmup_fraction": 0.0},
    "validation": {"every": 3, "sequences": 2, "patience": 12},
}


@pytest.mark.parametrize(
    ("kills", "options"),
    [((kill_trainer, kill_worker), PLAIN), ((kill_worker,), DEDICATED), ((kill_trainer,), PATIENT)],
    ids=["twice", "dedicated", "patience"],
)
def test_a_killed_job_ends_with_the_bytes_of_an_undisturbed_one(
    client: OpenAI,
    start_worker: StartWorker,
    kills: tuple[Callable[[subprocess.Popen[str]], None], ...],
    options: dict[str, Any],
) -> None:
    worker = start_worker()
    undisturbed = create_job(client, **options)
    assert await_state(client, undisturbed.id, "succeeded", "failed").status == "succeeded"

    disturbed = create_job(client, **options)
    seen = 0

    def went_on() -> bool:
        further = trained_tasks(disturbed.id) == 1 if options is DEDICATED else last_checkpoint(disturbed.id) > seen
        return further and recorded_checkpoints(disturbed.id) >= 2

    for kill in kills:
        wait_for(went_on, "another checkpoint")
        seen = last_checkpoint(disturbed.id)
        kill(worker)
        assert client.fine_tuning.jobs.retrieve(disturbed.id).status == "running"
        if worker.poll() is not None:
            worker = start_worker()
    assert await_state(client, disturbed.id, "succeeded", "failed").status == "succeeded"

    with transaction() as session:
        assert session.get_one(Job, disturbed.id).fence > len(kills), "the job was not taken up again"
    assert learnt(disturbed.id) == learnt(undisturbed.id)
    events = [event.message for event in client.fine_tuning.jobs.list_events(disturbed.id, limit=1000)]
    assert any(" goes on from step " in message for message in events)


def test_a_job_whose_worker_is_always_lost_fails_with_advice(client: OpenAI, start_worker: StartWorker) -> None:
    job = create_job(client, evaluate=False)
    with transaction() as session:
        row = session.get_one(Job, job.id)
        row.infrastructure_failures = 4
    start_worker()
    failed = await_state(client, job.id, "failed", "succeeded")
    assert failed.error is not None
    assert failed.error.code == "worker_lost"
    assert "4 times" in failed.error.message
