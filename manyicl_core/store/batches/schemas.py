"""Batches as the OpenAI API takes and shows them."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from manyicl_core.request_body import RequestBody
from manyicl_core.store.files.schemas import ExpiresAfter
from manyicl_core.store.job_states import CANCELLED, FAILED, SUCCEEDED
from manyicl_core.store.tables import Batch

EXPIRED = "batch_expired"

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/classifications"]
Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]

_Key = Annotated[str, StringConstraints(max_length=64)]
_Value = Annotated[str, StringConstraints(max_length=512)]


class CreateBatch(RequestBody):
    """The body of ``POST /v1/batches``."""

    input_file_id: Annotated[str, Field(min_length=1, max_length=64)]
    endpoint: Endpoint
    completion_window: Literal["24h"]
    metadata: Annotated[dict[_Key, _Value], Field(max_length=16)] | None = None
    output_expires_after: ExpiresAfter | None = None


class LineProblem(BaseModel):
    """OpenAI's ``BatchError``; ``line`` counts from 1, blank lines too, and is None for the whole file."""

    code: str
    line: int | None
    message: str
    param: str | None


class Errors(BaseModel):
    """Why a batch failed."""

    object: Literal["list"] = "list"
    data: list[LineProblem]


class RequestCounts(BaseModel):
    """Requests in all, answered, and answered with an error; those never sent are in ``total`` only."""

    total: int
    completed: int
    failed: int


class InputTokensDetails(BaseModel):
    """Tokens that were compiled before."""

    cached_tokens: int


class OutputTokensDetails(BaseModel):
    """No model here reasons apart from its answer."""

    reasoning_tokens: Literal[0] = 0


class BatchUsage(BaseModel):
    """The tokens of all answered requests."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class BatchObject(BaseModel):
    """OpenAI's ``Batch``."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: Errors | None
    input_file_id: str
    completion_window: str
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None


def batch_object(batch: Batch) -> BatchObject:
    """A row as the API shows it."""
    status = batch_status(batch)

    def finished(as_: Status) -> int | None:
        return _seconds(batch.finished_at) if status == as_ else None

    return BatchObject(
        id=batch.id,
        endpoint=batch.endpoint,
        model=batch.model,
        errors=_errors(batch),
        input_file_id=batch.input_file,
        completion_window=batch.completion_window,
        status=status,
        output_file_id=batch.output_file,
        error_file_id=batch.error_file,
        created_at=int(batch.created_at.timestamp()),
        in_progress_at=_seconds(batch.in_progress_at),
        expires_at=int(batch.expires_at.timestamp()),
        finalizing_at=_seconds(batch.finalizing_at),
        completed_at=finished("completed"),
        failed_at=finished("failed"),
        expired_at=finished("expired"),
        cancelling_at=_seconds(batch.cancel_requested_at),
        cancelled_at=finished("cancelled"),
        request_counts=RequestCounts(total=batch.total or 0, completed=batch.completed, failed=batch.failed),
        usage=BatchUsage(
            input_tokens=batch.input_tokens,
            input_tokens_details=InputTokensDetails(cached_tokens=batch.cached_tokens),
            output_tokens=batch.output_tokens,
            total_tokens=batch.input_tokens + batch.output_tokens,
        ),
        metadata=batch.labels or None,
    )


def batch_status(batch: Batch) -> Status:
    """OpenAI's word for where the batch stands."""
    if batch.state == SUCCEEDED:
        return "completed"
    if batch.state == CANCELLED:
        return "cancelled"
    if batch.state == FAILED:
        return "expired" if batch.error_code == EXPIRED else "failed"
    if batch.cancel_requested_at is not None:
        return "cancelling"
    if batch.finalizing_at is not None:
        return "finalizing"
    return "validating" if batch.in_progress_at is None else "in_progress"


def _errors(batch: Batch) -> Errors | None:
    problems = [LineProblem.model_validate(problem) for problem in batch.errors]
    if not problems and batch.error_code is not None:
        assert batch.error_message is not None
        problems = [LineProblem(code=batch.error_code, line=None, message=batch.error_message, param=None)]
    return Errors(data=problems) if problems else None


def _seconds(time: datetime | None) -> int | None:
    return None if time is None else int(time.timestamp())
