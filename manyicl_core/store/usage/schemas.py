"""Usage as the API shows it: OpenAI's page of daily buckets."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

from pydantic import BaseModel

from manyicl_core.store.tables import Batch, Context, Evaluation, Job
from manyicl_core.store.usage.service import BATCH, INTERACTIVE, TRAINED_TOKENS, worker_meter


class ServedTokens(BaseModel):
    """Answered requests and their tokens; ``input_tokens`` includes the cached ones."""

    num_model_requests: int
    input_tokens: int
    input_cached_tokens: int
    output_tokens: int


class WorkerSeconds(BaseModel):
    """How long workers held each kind of work; a job's evaluation is part of the job."""

    jobs: float
    evaluations: float
    contexts: float
    batches: float


class UsageResult(ServedTokens):
    """What a project used in a day; its own tokens are those of ``interactive`` and ``batch`` together."""

    object: Literal["usage.result"] = "usage.result"
    project_id: str
    trained_tokens: int
    interactive: ServedTokens
    batch: ServedTokens
    worker_seconds: WorkerSeconds


class UsageBucket(BaseModel):
    """One day, from 00:00 UTC, in seconds since 1970; a day without use has no result."""

    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: list[UsageResult]


class UsagePage(BaseModel):
    """Days, oldest first; the next ones come with ``page=next_page``."""

    object: Literal["page"] = "page"
    data: list[UsageBucket]
    has_more: bool
    next_page: str | None


def usage_bucket(project_id: str, day: date, meters: Mapping[str, int] | None) -> UsageBucket:
    """One day's meters as the API shows them."""
    start = datetime.combine(day, time(), UTC)
    end = start + timedelta(days=1)
    results = [] if meters is None else [_result(project_id, meters)]
    return UsageBucket(start_time=int(start.timestamp()), end_time=int(end.timestamp()), results=results)


def _result(project_id: str, meters: Mapping[str, int]) -> UsageResult:
    interactive, batch = _served(INTERACTIVE, meters), _served(BATCH, meters)
    together = {name: getattr(interactive, name) + getattr(batch, name) for name in ServedTokens.model_fields}
    return UsageResult(
        project_id=project_id,
        trained_tokens=meters.get(TRAINED_TOKENS, 0),
        interactive=interactive,
        batch=batch,
        worker_seconds=WorkerSeconds(
            jobs=meters.get(worker_meter(Job), 0) / 1000,
            evaluations=meters.get(worker_meter(Evaluation), 0) / 1000,
            contexts=meters.get(worker_meter(Context), 0) / 1000,
            batches=meters.get(worker_meter(Batch), 0) / 1000,
        ),
        **together,
    )


def _served(kind: str, meters: Mapping[str, int]) -> ServedTokens:
    return ServedTokens(
        num_model_requests=meters.get(f"{kind}_requests", 0),
        input_tokens=meters.get(f"{kind}_prompt_tokens", 0),
        input_cached_tokens=meters.get(f"{kind}_cached_tokens", 0),
        output_tokens=meters.get(f"{kind}_completion_tokens", 0),
    )
