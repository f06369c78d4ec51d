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
from manyicl_core.contract.weights import weight_files
from manyicl_core.errors import StorageFull
from manyicl_core.objects import ArtifactStore, fetch_weights, open_store, put_weights, weights_hash, weights_key
from manyicl_core.settings import Settings, get_settings, required
from manyicl_core.store.jobs import checkpoints, recorder
from manyicl_core.store.jobs.datasets import load_dataset
from manyicl_core.store.jobs.leases import Claim, LeaseLost, claim_job, give_up_lease
from manyicl_core.store.jobs.parts import Part, parts_of
from manyicl_core.store.jobs.specs import evaluation_spec, train_spec
from manyicl_core.store.models.weights import delete_unreferenced, hold_weights
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Job
from worker.heartbeat import Heartbeat
from worker.process import JobProcess, ProcessDied
from worker.processes import training_command

_log = structlog.get_logger(__name__)

TRAINER = "manyicl_core.training"
EVALUATION = "manyicl_core.evaluation"
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
    except JobFailed as failed:
        code, message = failed.code, failed.message
        _end_badly(claim, store, lambda session: recorder.record_failure(session, claim, code, message))
    except StorageFull as full:
        reason = full.message
        _end_badly(claim, store, lambda session: recorder.record_failure(session, claim, "disk_full", reason))
    except ProcessDied as error:
        if heartbeat.cancelled:
            _end_badly(claim, store, lambda session: recorder.record_cancelled(session, claim))
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
        _log.info("job_succeeded")


def _end_badly(claim: Claim, store: ArtifactStore, record: Callable[[Session], None]) -> None:
    """Write a failure or a cancel; what has been trained so far goes. Rows first: none points at nothing."""
    with transaction() as session:
        record(session)
        dropped, hashes = checkpoints.forget_checkpoints(session, claim.job_id)
    _delete(store, dropped)
    delete_unreferenced(store, hashes)


def _delete(store: ArtifactStore, dropped: list[checkpoints.Dropped]) -> None:
    for checkpoint in dropped:
        for name in checkpoint.files:
            store.delete(f"{checkpoint.key}/{name}")


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
        self._parts = parts_of(job, self._tasks)

    def run(self) -> None:
        """Train what no earlier attempt has, evaluate what is not evaluated yet, and record the success.

        Raises:
            ProcessDied: a process ended without a word, or was stopped.
            JobFailed: a process said why it cannot go on.
        """
        with tempfile.TemporaryDirectory(dir=self._settings.work_folder, prefix="manyicl-job-") as scratch:
            for part in self._parts:
                self._train(part, Path(scratch) / f"training-{part.number}")
            for part in self._parts:
                self._evaluate(part, Path(scratch) / f"evaluation-{part.number}")
        self._write(lambda session: recorder.record_success(session, self._claim, self._store, self._parts))
        if self._job.start_sha256 is not None:
            # Its model may have been deleted meanwhile.
            delete_unreferenced(self._store, {self._job.start_sha256})

    def _train(self, part: Part, folder: Path) -> None:
        with transaction() as session:
            if checkpoints.final_checkpoint(session, self._job.id, part.task):
                return
            found = checkpoints.restorable(session, self._job.id, part.task)
        folder.mkdir()
        start = self._fetch(self._job.start_sha256, folder / "start") if self._job.start_sha256 else None
        for name, checkpoint in (("checkpoint", found.latest), ("best", found.best)):
            if checkpoint is not None:
                assert checkpoint.key is not None
                self._store.get_folder(checkpoint.key, checkpoint.files, folder / name)
        spec = train_spec(self._job, self._tasks, part, self._model_folder, start, self._settings.threads)
        command = training_command(TRAINER, folder, self._settings.processes)
        self._run_process(command, spec, folder, lambda message: self._record_training(part, message))

    def _fetch(self, sha256: str, folder: Path) -> Path:
        try:
            fetch_weights(self._store, sha256, folder)
        except FileNotFoundError as error:
            raise JobFailed("invalid_data", f"the weights of the model to go on from are gone ({error})") from error
        return folder

    def _evaluate(self, part: Part, folder: Path) -> None:
        if self._job.options["adaptation"] == "full":
            return  # the evaluation takes adapters only
        folder.mkdir()
        with transaction() as session:
            trained = checkpoints.final_checkpoint(session, self._job.id, part.task)
            assert trained is not None
            adapter = folder / "adapter"
            spec = evaluation_spec(
                session, self._job, self._tasks, part, self._model_folder, adapter, self._settings.threads
            )
        if not spec.points:
            return
        fetch_weights(self._store, trained.weights_sha256, adapter)
        command = [sys.executable, "-m", EVALUATION, str(folder)]
        self._run_process(command, spec, folder, self._record_evaluation)

    def _run_process(
        self, command: list[str], spec: TrainSpec | EvaluationSpec, folder: Path, record: Callable[[Message], None]
    ) -> None:
        (folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
        with JobProcess(command, dict(os.environ), self._heartbeat) as process:
            for message in process.messages():
                if isinstance(message, Failed):
                    raise JobFailed(message.code, message.message)
                record(message)

    def _record_training(self, part: Part, message: Message) -> None:
        match message:
            case Started():
                self._write(lambda session: recorder.record_started(session, self._claim, part, message))
            case StepMetrics():
                self._write(lambda session: recorder.record_step(session, self._claim, part, message))
            case CheckpointSaved():
                self._keep_checkpoint(part, message)
            case Trained():
                self._keep_weights(part, message)
            case _:
                raise AssertionError(f"a trainer does not report {message.type!r}")

    def _keep_checkpoint(self, part: Part, message: CheckpointSaved) -> None:
        """Files first, then the row: a recorded checkpoint is always complete.

        The fence is part of the key, so a stale worker never writes where another reads.
        """
        folder = Path(message.folder)
        key = f"jobs/{self._job.id}/checkpoints/{self._claim.fence}-{part.number}-{message.step:06d}"
        files = self._store.put_folder(key, folder)
        digest = weights_hash(folder)
        dropped: list[checkpoints.Dropped] = []

        def write(session: Session) -> None:
            dropped[:] = checkpoints.record_checkpoint(session, self._claim, part, message, key, files, digest)

        self._write(write)
        _delete(self._store, dropped)

    def _keep_weights(self, part: Part, message: Trained) -> None:
        """Keep a trained part's last and best weights under their hashes, then let its checkpoints go."""
        folder = Path(message.folder)
        digest = put_weights(self._store, folder)
        names = sorted(path.name for path in folder.iterdir())
        with transaction() as session:
            best = checkpoints.best_checkpoint(session, self._job.id, part.task)
        kept = {digest} if best is None else {digest, best.weights_sha256}
        dropped: list[checkpoints.Dropped] = []

        def write(session: Session) -> None:
            # Whoever deletes a model with the same weights now waits, and then sees our row.
            for sha256 in sorted(kept):
                hold_weights(session, sha256)
            if self._store.names(weights_key(digest)) != names:
                put_weights(self._store, folder)
            if best is not None and best.key is not None:
                for name in weight_files(best.files):
                    self._store.copy(f"{best.key}/{name}", f"{weights_key(best.weights_sha256)}/{name}")
            dropped[:] = checkpoints.record_trained(session, self._claim, part, message, digest)

        self._write(write)
        _delete(self._store, dropped)

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
