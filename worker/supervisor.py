"""Run one job: train its parts, turn the trainers' progress into rows, evaluate, end it."""

from collections.abc import Callable
from pathlib import Path

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from manyicl_core.contract.progress import CheckpointSaved, Message, Started, StepMetrics, Trained
from manyicl_core.contract.weights import weight_files
from manyicl_core.errors import in_its_own_words
from manyicl_core.objects import ArtifactStore, put_weights, weights_hash, weights_key
from manyicl_core.store.evaluations.recorder import record_failure_in_job
from manyicl_core.store.job_states import FINAL
from manyicl_core.store.jobs import checkpoints, recorder
from manyicl_core.store.jobs.evaluation import examples_to_evaluate, find_evaluation, start_evaluation
from manyicl_core.store.jobs.parts import Part, parts_of
from manyicl_core.store.jobs.specs import train_spec
from manyicl_core.store.leases import Claim, LeaseLost
from manyicl_core.store.models.weights import delete_unreferenced, hold_weights
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Job
from manyicl_core.store.tasks.datasets import load_dataset
from worker.attempt import Attempt, Kind, attempt, fetched_weights, model_folder
from worker.evaluation import measure
from worker.giving_up import tell
from worker.processes import training_command

_log = structlog.get_logger(__name__)

TRAINER = "manyicl_core.training"


def run_job(job_id: str) -> None:
    """Take the job if it waits for a worker, and see it through."""
    attempt(JOB, job_id)


class JobRun:
    """One attempt at a job."""

    def __init__(self, work: Attempt[Job]) -> None:
        self._work = work
        self._claim = work.claim
        self._store = work.store
        self._job = work.row
        self._tasks = load_dataset(work.store, work.row.dataset)
        self._model_folder = model_folder(work.row.base_model)
        self._parts = parts_of(work.row, self._tasks)
        self._examples = examples_to_evaluate(work.row, self._tasks, self._parts)

    def run(self) -> None:
        """Train what no earlier attempt has, evaluate what is not evaluated yet, and record the success.

        Raises:
            ProcessDied: a process ended without a word, or was stopped.
            WorkFailed: a process said why it cannot go on.
        """
        for part in self._parts:
            self._train(part, self._work.scratch / f"training-{part.number}")
        self._evaluate()
        self._work.write(lambda session: recorder.record_success(session, self._claim, self._store, self._parts))
        _delete_start(self._store, self._job)

    def _train(self, part: Part, folder: Path) -> None:
        with transaction() as session:
            if checkpoints.final_checkpoint(session, self._job.id, part.task):
                return
            found = checkpoints.restorable(session, self._job.id, part.task)
        folder.mkdir()
        start = None
        if self._job.start_sha256 is not None:
            start = fetched_weights(self._store, self._job.start_sha256, folder / "start")
        for name, checkpoint in (("checkpoint", found.latest), ("best", found.best)):
            if checkpoint is not None:
                assert checkpoint.key is not None
                self._store.get_folder(checkpoint.key, checkpoint.files, folder / name)
        spec = train_spec(self._job, self._tasks, part, self._model_folder, start, self._work.settings.threads)
        command = training_command(TRAINER, folder, self._work.settings.processes)
        self._work.run_process(command, spec, folder, lambda message: self._record_training(part, message))

    def _evaluate(self) -> None:
        evaluation = self._work.write(lambda session: start_evaluation(session, self._claim, self._tasks, self._parts))
        if evaluation.state not in FINAL:
            measure(self._work, evaluation)

    def _record_training(self, part: Part, message: Message) -> None:
        write = self._work.write
        match message:
            case Started():
                write(lambda session: recorder.record_started(session, self._claim, part, message))
            case StepMetrics():
                write(lambda session: recorder.record_step(session, self._claim, part, message, self._examples))
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
        try:
            dropped = self._work.write(
                lambda session: checkpoints.record_checkpoint(session, self._claim, part, message, key, files, digest)
            )
        except LeaseLost:
            # Paused or taken over meanwhile. Had the write gone through all the same, a row would name the files.
            with transaction() as session:
                recorded = checkpoints.is_recorded(session, key)
            if not recorded:
                checkpoints.delete_dropped(self._store, [checkpoints.Dropped(key, files)])
            raise
        checkpoints.delete_dropped(self._store, dropped)

    def _keep_weights(self, part: Part, message: Trained) -> None:
        """Keep a trained part's last and best weights under their hashes, then let its checkpoints go."""
        folder = Path(message.folder)
        digest = put_weights(self._store, folder)
        names = sorted(path.name for path in folder.iterdir())
        with transaction() as session:
            best = checkpoints.best_checkpoint(session, self._job.id, part.task)
        kept = {digest} if best is None else {digest, best.weights_sha256}

        def write(session: Session) -> list[checkpoints.Dropped]:
            # Whoever deletes a model with the same weights now waits, and then sees our row.
            for sha256 in sorted(kept):
                hold_weights(session, sha256)
            if self._store.names(weights_key(digest)) != names:
                put_weights(self._store, folder)
            if best is not None and best.key is not None:
                for name in weight_files(best.files):
                    self._store.copy(f"{best.key}/{name}", f"{weights_key(best.weights_sha256)}/{name}")
            dropped = checkpoints.record_trained(session, self._claim, part, message, digest)
            if part.number == part.count - 1:
                start_evaluation(session, self._claim, self._tasks, self._parts)
            return dropped

        checkpoints.delete_dropped(self._store, self._work.write(write))


def _fail(store: ArtifactStore, claim: Claim[Job], code: str, message: str) -> None:
    """Write a failure. A job that is trained succeeds all the same: what failed is only its evaluation."""
    with transaction() as session:
        evaluation = find_evaluation(session, claim.id)
        if evaluation is not None and evaluation.state not in FINAL:
            record_failure_in_job(session, claim, evaluation.id, code, message)
    if evaluation is None:
        _end_badly(store, claim, lambda session: recorder.record_failure(session, claim, code, message))
    else:
        _succeed_at_last(store, claim)


def _succeed_at_last(store: ArtifactStore, claim: Claim[Job]) -> None:
    """Record the success of a trained job, without its files where the store does not take them."""
    with transaction() as session:
        job = session.get_one(Job, claim.id)
        parts = checkpoints.trained_parts(session, job.id)
        session.expunge(job)
    try:
        with transaction() as session:
            recorder.record_success(session, claim, store, parts)
    except (LeaseLost, OperationalError):
        raise
    except Exception as error:
        _log.exception("result_files_failed")
        with transaction() as session:
            tell(
                session,
                claim,
                "warn",
                f"The result files could not be stored ({in_its_own_words(error)}); the model's own files are at "
                "/v1/models/{model}/artifacts, its metrics at /v1/fine_tuning/jobs/{job}/metrics",
            )
            recorder.record_success(session, claim, None, parts)
    _delete_start(store, job)


def _delete_start(store: ArtifactStore, job: Job) -> None:
    """The model that the job started from may have been deleted meanwhile, and the job is over."""
    if job.start_sha256 is not None:
        delete_unreferenced(store, {job.start_sha256})


def _cancel(store: ArtifactStore, claim: Claim[Job]) -> None:
    _end_badly(store, claim, lambda session: recorder.record_cancelled(session, claim))


def _end_badly(store: ArtifactStore, claim: Claim[Job], record: Callable[[Session], None]) -> None:
    """Write a failure or a cancel; what has been trained so far goes. Rows first: none points at nothing."""
    with transaction() as session:
        record(session)
        left = checkpoints.forget_checkpoints(session, claim.id)
    left.delete(store)


JOB = Kind(table=Job, run=lambda work: JobRun(work).run(), fail=_fail, cancel=_cancel)
