"""Run one batch: check its lines, answer them, make its files."""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from manyicl_core.answers.objects import AnswerObject
from manyicl_core.engines.client import open_engines
from manyicl_core.engines.patient_engine import PatientEngine
from manyicl_core.errors import StorageFull
from manyicl_core.objects import ArtifactStore
from manyicl_core.settings import get_settings
from manyicl_core.store.batches import recorder
from manyicl_core.store.batches.lines import check_file, read_requests
from manyicl_core.store.batches.results import (
    Result,
    chunk_key,
    delete_work_files,
    done_ids,
    fetch_input,
    recorded_chunks,
    without,
    write_result_files,
)
from manyicl_core.store.batches.schemas import EXPIRED
from manyicl_core.store.batches.service import seconds_left
from manyicl_core.store.files.schemas import BATCH_OUTPUT_PURPOSE
from manyicl_core.store.files.service import stored_file
from manyicl_core.store.leases import Claim
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Batch, File
from worker.attempt import Attempt, Kind, attempt
from worker.batch_answers import Answering
from worker.batch_requests import BodyCheck, answer_body
from worker.process import ProcessDied

RecordEnd = Callable[[Session, File | None, File | None], None]


def run_batch(batch_id: str) -> None:
    """Take the batch if it waits for a worker, and see it through."""
    attempt(BATCH, batch_id)


def _run(work: Attempt[Batch]) -> None:
    requests = fetch_input(work.store, work.row.id, work.scratch)
    if work.row.total is None:
        checked = check_file(requests, work.row.endpoint, BodyCheck(work.row.project_id, work.store, work.row.endpoint))
        if checked.problems:
            work.write(lambda session: recorder.record_invalid(session, work.claim, checked.problems))
            delete_work_files(work.store, work.row.id)
            return
        work.write(lambda session: recorder.record_checked(session, work.claim, checked))
    if asyncio.run(_answer_rest(work, requests)):
        work.write(lambda session: recorder.record_finalizing(session, work.claim))
        _end(
            work.store,
            work.claim,
            {},
            lambda session, output, errors: recorder.record_success(session, work.claim, output, errors),
        )
    elif work.heartbeat.stop.is_set():
        raise ProcessDied("stopped")
    else:
        _fail(
            work.store,
            work.claim,
            EXPIRED,
            "The completion window was over before all was answered; send the rest again",
        )


async def _answer_rest(work: Attempt[Batch], requests: Path) -> bool:
    """Answer what no earlier attempt has; say whether all is answered now."""
    with transaction() as session:
        chunks = recorded_chunks(session, work.row.id)
        deadline = time.monotonic() + seconds_left(session, work.row.id)
    numbers = itertools.count(chunks[-1].number + 1 if chunks else 0)

    def record(results: list[Result]) -> None:
        number = next(numbers)
        key = chunk_key(work.row.id, work.claim.fence, number)
        # The lines first, then the row: a recorded chunk is always there.
        work.store.put(key, b"".join(result.line() for result in results))
        work.write(lambda session: recorder.record_chunk(session, work.claim, number, key, results))

    engines = open_engines(work.settings, work.store)
    engine = PatientEngine(engines)

    async def answer(body: dict[str, Any]) -> AnswerObject:
        return await answer_body(engine, work.store, work.row.project_id, work.row.endpoint, body)

    try:
        left = without(read_requests(requests), done_ids(work.store, chunks))
        return await Answering(answer, record).run(
            left, lambda: work.heartbeat.stop.is_set() or time.monotonic() > deadline
        )
    finally:
        await engines.close()


def _fail(store: ArtifactStore, claim: Claim[Batch], code: str, message: str) -> None:
    def record(session: Session, output: File | None, errors: File | None) -> None:
        recorder.record_failure(session, claim, code, message, output, errors)

    try:
        _end(store, claim, {"code": code, "message": message}, record)
    except StorageFull:
        with transaction() as session:
            record(session, None, None)
        delete_work_files(store, claim.id)


def _cancel(store: ArtifactStore, claim: Claim[Batch]) -> None:
    never_sent = {"code": "batch_cancelled", "message": "The batch was cancelled before this request was answered"}
    _end(
        store,
        claim,
        never_sent,
        lambda session, output, errors: recorder.record_cancelled(session, claim, output, errors),
    )


def _end(store: ArtifactStore, claim: Claim[Batch], never_sent: dict[str, str], record: RecordEnd) -> None:
    """Make the files of what is recorded, then write how the batch ended.

    Args:
        store: holds the chunks.
        claim: the right to write.
        never_sent: the ``error`` of requests that nobody answered.
        record: writes the end, with the output file and the error file.
    """
    with transaction() as session:
        batch = session.get_one(Batch, claim.id)
        chunks = recorded_chunks(session, claim.id)
    with tempfile.TemporaryDirectory(dir=get_settings().work_folder, prefix="manyicl-") as scratch:
        output, errors = None, None
        if batch.total is not None:
            requests = fetch_input(store, claim.id, Path(scratch))
            written = write_result_files(store, chunks, requests, Path(scratch), never_sent)
            output = _stored(store, batch, written.output, "output")
            errors = _stored(store, batch, written.errors, "error")
        with transaction() as session:
            record(session, output, errors)
    delete_work_files(store, claim.id)


def _stored(store: ArtifactStore, batch: Batch, path: Path | None, kind: str) -> File | None:
    if path is None:
        return None
    return stored_file(store, batch.project_id, path, f"{batch.id}_{kind}.jsonl", BATCH_OUTPUT_PURPOSE)


BATCH = Kind(table=Batch, run=_run, fail=_fail, cancel=_cancel)
