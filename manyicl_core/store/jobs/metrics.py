"""The metrics of a job's steps: in pages, and as CSV."""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import BaseModel
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from manyicl_core.store.jobs.service import get_job
from manyicl_core.store.pages import Page, fetch_page
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Job, JobMetrics

_COLUMNS = (
    "step",
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "learning_rate",
    "gradient_norm",
    "tokens",
    "answers",
    "seconds",
)
_AT_ONCE = 1000


class MetricsObject(BaseModel):
    """One optimizer step; ``id`` is its number, so that the next page starts behind it."""

    id: str
    object: Literal["fine_tuning.job.metrics"] = "fine_tuning.job.metrics"
    created_at: int
    step: int
    metrics: dict[str, Any]


def metrics_object(row: JobMetrics) -> MetricsObject:
    """A row as the API shows it."""
    metrics = {name: value for name, value in row.values.items() if name != "step"}
    return MetricsObject(id=str(row.step), created_at=int(row.created_at.timestamp()), step=row.step, metrics=metrics)


def list_metrics(
    session: Session, project_id: str, job_id: str, after: int | None, limit: int, every: int
) -> Page[JobMetrics]:
    """A page of a job's steps in their order; ``every`` keeps those whose number it divides.

    Raises:
        NotFound: the project has no such job.
    """
    job = get_job(session, project_id, job_id)
    cursor = None if after is None else (after,)
    return fetch_page(session, _steps(job, every), (JobMetrics.step,), cursor, limit, ascending=True)


def metrics_lines(job: Job, every: int) -> Iterator[str]:
    """All steps as CSV; no transaction stays open while a slow client reads."""
    cursor: tuple[int] | None = None
    while True:
        with transaction() as session:
            page = fetch_page(session, _steps(job, every), (JobMetrics.step,), cursor, _AT_ONCE, ascending=True)
        yield metrics_csv(job, (row.values for row in page.rows), header=cursor is None)
        if not page.has_more:
            return
        cursor = (page.rows[-1].step,)


def metrics_csv(job: Job, rows: Iterable[dict[str, Any]], header: bool = True) -> str:
    """Rows as lines of numbers only, as tools that sync OpenAI jobs expect.

    A validation's columns are empty where it was not measured. A dedicated job's rows say by
    ``task_number`` which task they belong to, in the order of the job's tasks, from 1.
    """
    columns = [*_COLUMNS, "task_number"] if job.options["objective"] == "dedicated" else _COLUMNS
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _steps(job: Job, every: int) -> Select[JobMetrics]:
    query = select(JobMetrics).where(JobMetrics.job_id == job.id)
    return query if every == 1 else query.where(JobMetrics.step % every == 0)
