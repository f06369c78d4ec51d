"""One attempt at a job or an evaluation: claim it, run it under a heartbeat, end it.

The supervisor imports no torch. It may die at any moment: the kernel then kills its child, the
lease runs out, and another supervisor goes on from what is recorded.
"""

import errno
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import structlog
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from manyicl_core.base_models.catalog import base_model_folder, find_base_model
from manyicl_core.contract.progress import Failed, Message
from manyicl_core.errors import StorageAway, StorageFull, in_its_own_words
from manyicl_core.objects import ArtifactStore, fetch_weights, open_store
from manyicl_core.settings import Settings, get_settings, required
from manyicl_core.store.leases import Claim, LeaseLost, claim_work
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Leased
from worker import shutdown
from worker.giving_up import give_up_lost, hand_over, is_last_attempt
from worker.heartbeat import Heartbeat
from worker.process import JobProcess, ProcessDied

_log = structlog.get_logger(__name__)

_DATABASE_PAUSE_SECONDS = 0.5

WORKER_LOST = "worker_lost"

Row = TypeVar("Row", bound=Leased)
Row_co = TypeVar("Row_co", bound=Leased, covariant=True)
Written = TypeVar("Written")


class WorkFailed(Exception):
    """The work cannot succeed, however often it is tried."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Attempt(Generic[Row_co]):
    """What an attempt works with.

    Attributes:
        claim: the right to write for the work.
        row: the work as it was when it was claimed.
        scratch: a folder that goes when the attempt is over.
    """

    claim: Claim[Row_co]
    row: Row_co
    settings: Settings
    store: ArtifactStore
    heartbeat: Heartbeat
    scratch: Path

    def run_process(self, command: list[str], spec: BaseModel, folder: Path, record: Callable[[Message], None]) -> None:
        """Run a process that reads ``folder/spec.json``; record what it reports.

        Raises:
            ProcessDied: it ended without a word, or was stopped.
            WorkFailed: it said why it cannot go on.
        """
        (folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
        with JobProcess(command, dict(os.environ), self.heartbeat) as process:
            for message in process.messages():
                if isinstance(message, Failed):
                    raise WorkFailed(message.code, message.message)
                record(message)

    def write(self, write: Callable[[Session], Written]) -> Written:
        """One fenced write. While the database is away the process goes on, and the write waits.

        Raises:
            ProcessDied: the work was lost or cancelled meanwhile.
        """
        while True:
            try:
                with transaction() as session:
                    return write(session)
            except OperationalError as error:
                _log.warning("database_away", reason=str(error).splitlines()[0])
                if self.heartbeat.stop.wait(_DATABASE_PAUSE_SECONDS):
                    raise ProcessDied("stopped while the database was away") from error


@dataclass(frozen=True, slots=True)
class Kind(Generic[Row]):
    """What there is to run: the table that holds it, and how it runs and ends.

    Attributes:
        run: does the work and records its success.
    fail: writes that it failed, with a code and a message, and tidies up.
    cancel: writes that it was cancelled, and tidies up.
    """

    table: type[Row]
    run: Callable[[Attempt[Row]], None]
    fail: Callable[[ArtifactStore, Claim[Row], str, str], None]
    cancel: Callable[[ArtifactStore, Claim[Row]], None]


def attempt(kind: Kind[Row], id_: str) -> None:
    """Take the work if it waits for a worker, and see it through."""
    with transaction() as session:
        claim = claim_work(session, kind.table, id_, get_settings().lease_seconds)
    if claim is not None:
        see_through(kind, claim)


def see_through(kind: Kind[Row], claim: Claim[Row]) -> None:
    """Run claimed work under a heartbeat, and write how it ended."""
    settings = get_settings()
    with structlog.contextvars.bound_contextvars(id=claim.id, fence=claim.fence):
        _log.info("claimed")
        try:
            with Heartbeat(claim, settings.lease_seconds) as heartbeat:
                _see_through(kind, claim, settings, heartbeat)
        except LeaseLost:
            _log.warning("lost")


def _see_through(kind: Kind[Row], claim: Claim[Row], settings: Settings, heartbeat: Heartbeat) -> None:
    """Run the work and write how it ended."""
    store = open_store(required(settings, "storage_url"))
    with transaction() as session:
        row = session.get_one(claim.table, claim.id)
        session.expunge(row)
    try:
        _refuse_hopeless(row, settings)
        with tempfile.TemporaryDirectory(dir=settings.work_folder, prefix="manyicl-") as scratch:
            kind.run(Attempt(claim, row, settings, store, heartbeat, Path(scratch)))
    except WorkFailed as error:
        kind.fail(store, claim, error.code, error.message)
    except StorageFull as error:
        kind.fail(store, claim, "disk_full", error.message)
    except (LeaseLost, OperationalError):
        raise  # somebody else goes on, at once or when the lease has run out
    except Exception as error:
        if heartbeat.cancelled:
            kind.cancel(store, claim)
        elif heartbeat.lost:
            raise LeaseLost(claim.id) from error
        elif shutdown.is_asked():
            heartbeat.let_go()
            hand_over(claim)
            _log.info("handed_over", reason=str(error))
        else:
            _try_again(kind, claim, store, heartbeat, _failure(error))
    else:
        _log.info("succeeded")


def _try_again(
    kind: Kind[Row], claim: Claim[Row], store: ArtifactStore, heartbeat: Heartbeat, failure: WorkFailed
) -> None:
    """Leave the work to another attempt, or let it fail when there have been enough of them."""
    _log.error("attempt_failed", code=failure.code, exc_info=failure.__cause__)
    if is_last_attempt(claim):
        kind.fail(store, claim, failure.code, failure.message)
    else:
        heartbeat.let_go()
        give_up_lost(claim, failure.message)


def _failure(error: Exception) -> WorkFailed:
    """What ended an attempt that nobody had asked to end, as the work's failure."""
    match error:
        case ProcessDied():
            failure = WorkFailed(
                WORKER_LOST,
                f"the process that computes ended without a word ({error}); look for memory or power trouble on the "
                "worker, then create it again",
            )
        case StorageAway():
            failure = WorkFailed("storage_away", f"{error.message}; create it again when it does")
        case OSError(errno=errno.ENOSPC):
            failure = WorkFailed("disk_full", "the worker's disk is full; free some space and create it again")
        case _:
            failure = WorkFailed(
                "internal_error",
                f"the worker met an error that it does not know ({in_its_own_words(error)}); its log has the whole "
                "story; create it again when the cause is gone",
            )
    failure.__cause__ = error
    return failure


def _refuse_hopeless(row: Leased, settings: Settings) -> None:
    if row.infrastructure_failures > settings.max_infrastructure_failures:
        raise WorkFailed(
            WORKER_LOST,
            f"the worker was lost {row.infrastructure_failures} times; look for memory or power trouble on the "
            "worker, then create it again",
        )


def model_folder(base_model: str) -> Path:
    """Where this worker has the base model.

    Raises:
        WorkFailed: it does not know the model.
    """
    base = find_base_model(base_model)
    if base is None:
        raise WorkFailed("invalid_data", f"this worker does not know the base model {base_model!r}")
    return base_model_folder(base)


def fetched_weights(store: ArtifactStore, sha256: str, folder: Path) -> Path:
    """``folder``, with an adapter or a whole model in it.

    Raises:
        WorkFailed: the weights are gone.
    """
    try:
        fetch_weights(store, sha256, folder)
    except FileNotFoundError as error:
        raise WorkFailed("invalid_data", f"the weights of a model that is needed are gone ({error})") from error
    return folder
