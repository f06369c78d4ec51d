"""What a running batch's worker writes: every write locks the held row and checks the fence."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from manyicl_core.store.batches.lines import CheckedFile
from manyicl_core.store.batches.results import Result
from manyicl_core.store.batches.schemas import LineProblem, batch_status
from manyicl_core.store.job_states import CANCELLED, FAILED, SUCCEEDED
from manyicl_core.store.leases import Claim, finish, hold
from manyicl_core.store.tables import Batch, BatchChunk, File
from manyicl_core.store.usage.service import BATCH, add_usage, served
from manyicl_core.store.webhooks.outbox import announce

INVALID = "invalid_requests"


def record_checked(session: Session, claim: Claim[Batch], checked: CheckedFile) -> None:
    """All lines are right: the batch is in progress."""
    batch = hold(session, claim)
    batch.total = checked.total
    batch.model = checked.model
    batch.in_progress_at = session.scalar(select(func.now()))


def record_invalid(session: Session, claim: Claim[Batch], problems: Sequence[LineProblem]) -> None:
    """Lines are wrong, and nothing is answered."""
    batch = hold(session, claim)
    batch.errors = [problem.model_dump() for problem in problems]
    record_failure(session, claim, INVALID, f"{len(problems)} lines of the input file are wrong")


def record_chunk(session: Session, claim: Claim[Batch], number: int, key: str, results: Sequence[Result]) -> None:
    """Results that lie under ``key`` count from now on, once however often this is tried."""
    batch = hold(session, claim)
    row = insert(BatchChunk).values(batch_id=batch.id, number=number, key=key)
    if session.execute(row.on_conflict_do_nothing().returning(BatchChunk.number)).scalar() is None:
        return
    # Something comes of the attempts: what was lost before does not count against the next.
    batch.infrastructure_failures = 0
    answers = [result.body for result in results if result.succeeded]
    batch.completed += len(answers)
    batch.failed += len(results) - len(answers)
    meters: Counter[str] = Counter()
    for usage in (answer.get("usage") or {} for answer in answers):
        meters.update(served(BATCH, usage))
        batch.input_tokens += usage.get("prompt_tokens", 0)
        batch.output_tokens += usage.get("completion_tokens", 0)
        batch.cached_tokens += (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    add_usage(session, batch.project_id, meters)


def record_finalizing(session: Session, claim: Claim[Batch]) -> None:
    """Every request has a result; the files are being written."""
    batch = hold(session, claim)
    batch.finalizing_at = batch.finalizing_at or session.scalar(select(func.now()))


def record_success(session: Session, claim: Claim[Batch], output: File | None, errors: File | None) -> None:
    """Every request has a result, and the files hold them."""
    batch = hold(session, claim)
    assert batch.completed + batch.failed == batch.total, f"{batch.id} has lost or doubled a request"
    _keep_files(session, batch, output, errors)
    _finish(session, batch, SUCCEEDED)


def record_cancelled(session: Session, claim: Claim[Batch], output: File | None, errors: File | None) -> None:
    """The worker has stopped, as was asked; the files hold what was answered until then."""
    batch = hold(session, claim)
    _keep_files(session, batch, output, errors)
    _finish(session, batch, CANCELLED)


def record_failure(
    session: Session,
    claim: Claim[Batch],
    code: str,
    message: str,
    output: File | None = None,
    errors: File | None = None,
) -> None:
    """The batch is over without an answer to every request; ``message`` says what to do next."""
    batch = hold(session, claim)
    batch.error_code = code
    batch.error_message = message
    _keep_files(session, batch, output, errors)
    _finish(session, batch, FAILED)


def _finish(session: Session, batch: Batch, state: str) -> None:
    finish(session, batch, state)
    announce(session, batch.project_id, f"batch.{batch_status(batch)}", batch.id)


def _keep_files(session: Session, batch: Batch, output: File | None, errors: File | None) -> None:
    for file in (output, errors):
        if file is not None:
            if batch.output_seconds is not None:
                file.expires_at = session.scalar(select(func.now() + timedelta(seconds=batch.output_seconds)))
            session.add(file)
    session.flush()
    batch.output_file = output.id if output is not None else None
    batch.error_file = errors.id if errors is not None else None
