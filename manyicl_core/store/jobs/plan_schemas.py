"""A job's plan as the API shows it."""

from typing import Any, Literal

from pydantic import BaseModel


class TaskPlan(BaseModel):
    """One trained task; ``shots`` maps a number of demonstrations to the sequences that have so many."""

    task: str
    sequences: int
    tokens: int
    target_tokens: int
    answers: int
    shots: dict[int, int]


class Misfit(BaseModel):
    """A line that is too long: an example for a sequence, or a query for the model."""

    file: Literal["training", "validation"]
    task: str
    line: int
    tokens: int
    limit: int
    message: str


class NearLeakObject(BaseModel):
    """A line that is tested and shares a run of ten words with a trained line of the training file."""

    file: Literal["training", "validation"]
    task: str
    line: int
    other_task: str
    other_line: int
    words: str
    message: str


class PlannedAnswer(BaseModel):
    """An answer in the text: half-open character offsets; ``shot`` demonstrations stand before it."""

    start: int
    end: int
    shot: int
    supervised: bool


class PlannedSequence(BaseModel):
    """The job's first sequence; no document, which starts at one of ``documents``, sees another."""

    task: str
    tokens: int
    text: str
    documents: list[int]
    answers: list[PlannedAnswer]


class EstimateObject(BaseModel):
    """What training takes on a worker like the measured one; the evaluation comes on top.

    ``note`` says what makes it rougher than usual: None where this kind of adapter was measured on
    an otherwise idle worker.
    """

    seconds: float
    peak_memory_bytes: int
    device: str
    dtype: str
    threads: int
    measured_at: int
    note: str | None = None


class PlanObject(BaseModel):
    """What a job would do.

    Attributes:
        seed: with this seed the job does exactly this.
        adapters: how many it makes, one a task when ``dedicated``.
        exact: every sequence was counted; a very long job is counted in part and the rest estimated.
        answers_over_few_shot: supervised answers over those of ``few_shot`` at as many tokens.
        does_not_fit: lines for which the job would be refused; the plan leaves them out.
        no_estimate: why there is no estimate.
        ask_again_seconds: when the same plan may know more; None: it knows all.
        sequence: None when nothing fits.
    """

    object: Literal["fine_tuning.job.plan"] = "fine_tuning.job.plan"
    model: str
    seed: int
    hyperparameters: dict[str, Any]
    adapters: int
    exact: bool
    sequences: int
    steps: int
    tokens: int
    target_tokens: int
    answers: int
    answers_over_few_shot: float | None
    tasks: list[TaskPlan]
    does_not_fit: list[Misfit]
    near_leaks: list[NearLeakObject]
    estimate: EstimateObject | None = None
    no_estimate: str | None = None
    ask_again_seconds: int | None = None
    sequence: PlannedSequence | None
