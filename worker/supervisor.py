"""Run one job: claim it, start its processes, turn their progress into rows, end it.

The supervisor imports no torch. It may die at any moment: the kernel then kills its child, the
lease runs out, and another supervisor goes on from the last recorded checkpoint or phase.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from manyicl_core.base_models.catalog import base_model_folder, find_base_model
from manyicl_core.contract.evaluation_spec import EvaluationSpec
from manyicl_core.contract.progress import (
    CheckpointSaved,
    EvaluationResult,
    Failed,
    Message,
    Started,
    StepMetrics,
    Trained,
)
from manyicl_core.contract.train_spec import TrainSpec
from manyicl_core.errors import StorageFull
from manyicl_core.objects import ADAPTER_FILES, ArtifactStore, adapter_key, open_store, sha256_of
from manyicl_core.settings import Settings, get_settings, required
from manyicl_core.store.jobs import recorder
from manyicl_core.store.jobs.datasets import load_dataset
from manyicl_core.store.jobs.leases import Claim, LeaseLost, claim_job, give_up_lease
from manyicl_core.store.jobs.specs import evaluation_spec, latest_checkpoint, train_spec
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Job
from worker.heartbeat import Heartbeat
from worker.process import JobProcess, ProcessDied

_log = structlog.get_logger(__name__)

TRAINER = "manyicl_core.training"
EVALUATION = "manyicl_core.evaluation"
_KEPT_CHECKPOINTS = 2
_DATABASE_PAUSE_SECONDS = 0.5


class JobFailed(Exception):
    """The job cannot succeed, however often it is tried."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def run_job(job_id: str) -> None:
    """Take the job if it waits for a worker, and see it through."""
    settings = get_settings()
    with transaction() as session:
        claim = claim_job(session, job_id, settings.lease_seconds)
    if claim is None:
        return
    structlog.contextvars.bind_contextvars(job=job_id, fence=claim.fence)
    _log.info("job_claimed")
    try:
        with Heartbeat(claim, settings.lease_seconds) as heartbeat:
            _end(claim, settings, heartbeat)
    except LeaseLost:
        _log.warning("job_lost")
    finally:
        structlog.contextvars.unbind_contextvars("job", "fence")


def _end(claim: Claim, settings: Settings, heartbeat: Heartbeat) -> None:
    """Run the job and write how it ended."""
    store = open_store(required(settings, "storage_url"))
    try:
        _refuse_hopeless(claim, settings)
        JobRun(claim, settings, store, heartbeat).run()
    except JobFailed as error:
        with transaction() as session:
            recorder.record_failure(session, claim, error.code, error.message)
    except StorageFull as error:
        with transaction() as session:
            recorder.record_failure(session, claim, "disk_full", error.message)
    except ProcessDied as error:
        if heartbeat.cancelled:
            with transaction() as session:
                recorder.record_cancelled(session, claim)
        elif heartbeat.lost:
            raise LeaseLost(claim.job_id) from error
        else:
            # Killed from outside, for memory perhaps. Whoever takes the job up again counts it as
            # a loss, and gives up after max_infrastructure_failures.
            _log.warning("process_died", reason=str(error))
            heartbeat.let_go()
            with transaction() as session:
                give_up_lease(session, claim)
    else:
        with transaction() as session:
            recorder.record_success(session, claim, store)
        _log.info("job_succeeded")
        _drop_checkpoints(store, claim.job_id, keep=0)


def _drop_checkpoints(store: ArtifactStore, job_id: str, keep: int) -> None:
    """Rows first: no row ever points at files that are gone."""
    with transaction() as session:
        dropped = recorder.drop_checkpoints(session, job_id, keep)
    for key, files in dropped:
        for name in files:
            store.delete(f"{key}/{name}")


def _refuse_hopeless(claim: Claim, settings: Settings) -> None:
    with transaction() as session:
        failures = session.get_one(Job, claim.job_id).infrastructure_failures
    if failures > settings.max_infrastructure_failures:
        raise JobFailed(
            "worker_lost",
            f"the worker of this job was lost {failures} times; look for memory or power trouble on the worker, "
            "then create the job again",
        )


class JobRun:
    """One attempt at a job, in a scratch folder that goes when it is over."""

    def __init__(self, claim: Claim, settings: Settings, store: ArtifactStore, heartbeat: Heartbeat) -> None:
        self._claim = claim
        self._settings = settings
        self._store = store
        self._heartbeat = heartbeat
        with transaction() as session:
            job = session.get_one(Job, claim.job_id)
            session.expunge(job)
        self._job = job
        self._tasks = load_dataset(store, job.dataset)
        base = find_base_model(job.base_model)
        if base is None:
            raise JobFailed("invalid_data", f"this worker does not know the base model {job.base_model!r}")
        self._model_folder = base_model_folder(base)

    def run(self) -> None:
        """Train unless an earlier attempt has, then evaluate what is not evaluated yet.

        Raises:
            ProcessDied: a process ended without a word, or was stopped.
            JobFailed: a process said why it cannot go on.
        """
        with tempfile.TemporaryDirectory(dir=self._settings.work_folder, prefix="manyicl-job-") as scratch:
            if self._job.adapter_sha256 is None:
                self._train(Path(scratch) / "training")
            self._evaluate(Path(scratch) / "evaluation")

    def _train(self, folder: Path) -> None:
        folder.mkdir()
        spec = train_spec(self._job, self._tasks, self._model_folder, self._settings.threads)
        with transaction() as session:
            checkpoint = latest_checkpoint(session, self._job.id)
        if checkpoint is not None:
            self._store.get_folder(checkpoint.key, checkpoint.files, folder / "checkpoint")
        self._run_process(TRAINER, spec, folder, self._record_training)

    def _evaluate(self, folder: Path) -> None:
        folder.mkdir()
        with transaction() as session:
            job = session.get_one(Job, self._job.id)
            assert job.adapter_sha256 is not None
            spec = evaluation_spec(
                session, job, self._tasks, self._model_folder, folder / "adapter", self._settings.threads
            )
            adapter = job.adapter_sha256
        if not spec.points:
            return
        self._store.get_folder(adapter_key(adapter), ADAPTER_FILES, folder / "adapter")
        self._run_process(EVALUATION, spec, folder, self._record_evaluation)

    def _run_process(
        self, module: str, spec: TrainSpec | EvaluationSpec, folder: Path, record: Callable[[Message], None]
    ) -> None:
        (folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", module, str(folder)]
        with JobProcess(command, dict(os.environ), self._heartbeat) as process:
            for message in process.messages():
                if isinstance(message, Failed):
                    raise JobFailed(message.code, message.message)
                record(message)

    def _record_training(self, message: Message) -> None:
        match message:
            case Started():
                self._write(lambda session: recorder.record_started(session, self._claim, message))
            case StepMetrics():
                self._write(lambda session: recorder.record_step(session, self._claim, message))
            case CheckpointSaved():
                self._keep_checkpoint(message)
            case Trained():
                folder = Path(message.folder)
                digest = sha256_of(folder / "adapter_model.safetensors")
                self._store.put_folder(adapter_key(digest), folder)
                peak = message.peak_memory_bytes
                self._write(lambda session: recorder.record_adapter(session, self._claim, digest, peak))
            case _:
                raise AssertionError(f"a trainer does not report {message.type!r}")

    def _keep_checkpoint(self, message: CheckpointSaved) -> None:
        """Files first, then the row: a recorded checkpoint is always complete.

        The fence is part of the key, so a stale worker never writes where another reads.
        """
        key = f"jobs/{self._job.id}/checkpoints/{self._claim.fence}-{message.step:06d}"
        files = self._store.put_folder(key, Path(message.folder))
        self._write(lambda session: recorder.record_checkpoint(session, self._claim, message.step, key, files))
        _drop_checkpoints(self._store, self._job.id, keep=_KEPT_CHECKPOINTS)

    def _record_evaluation(self, message: Message) -> None:
        assert isinstance(message, EvaluationResult), f"an evaluation does not report {message.type!r}"
        self._write(lambda session: recorder.record_result(session, self._claim, message))

    def _write(self, write: Callable[[Session], None]) -> None:
        """One fenced write. While the database is away the job's process goes on, and the write waits."""
        while True:
            try:
                with transaction() as session:
                    write(session)
                return
            except OperationalError as error:
                _log.warning("database_away", reason=str(error).splitlines()[0])
                if self._heartbeat.stop.wait(_DATABASE_PAUSE_SECONDS):
                    raise ProcessDied("stopped while the database was away") from error
