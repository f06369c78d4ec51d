"""What a trainer or evaluation process reports: one JSON object a line on standard output. No torch.

The supervisor reads these lines and turns them into rows; the process itself knows no database.
"""

from typing import Annotated, Literal, TextIO

from pydantic import BaseModel, Field, TypeAdapter

from manyicl_core.contract.evidence import Evidence


class Started(BaseModel):
    """The work is known and about to begin, from step ``step``."""

    type: Literal["started"] = "started"
    step: int
    steps: int
    tokens: int
    answers: int
    target_tokens: int
    dtype: str


class StepMetrics(BaseModel):
    """One optimizer step.

    ``loss`` is in nats, normalised as the job asks; ``loss_by_answer`` and ``accuracy_by_answer``
    map the first number of shots of a bucket (0, 1, 2, 4, 8, …) to the mean over the answers that
    stand behind so many demonstrations. The validation's figures are there where it was measured.
    """

    type: Literal["metrics"] = "metrics"
    step: int
    loss: float
    token_accuracy: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    answers: int
    seconds: float
    loss_by_answer: dict[int, float]
    accuracy_by_answer: dict[int, float]
    valid_loss: float | None = None
    valid_token_accuracy: float | None = None


class CheckpointSaved(BaseModel):
    """A checkpoint lies complete in ``folder``; ``best``: no earlier one has a lower ``valid_loss``."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int
    folder: str
    valid_loss: float | None = None
    best: bool = False


class Trained(BaseModel):
    """Training is over and the weights after ``step`` lie in ``folder``."""

    type: Literal["trained"] = "trained"
    step: int
    folder: str
    peak_memory_bytes: int


class EvaluationResult(BaseModel):
    """One metric of one model and task at one number of shots, from 0 to 1.

    Attributes:
        k: demonstrations asked for.
        shots: the fewest that a draw's context holds: ``k``, unless fewer exist or fit.
        value: over all queries and draws.
        low: lower end of the 95 % bootstrap interval over items and draws; ``high``: upper end.
        queries: how many different queries.
        draws: how many contexts each was asked with; 1 where ``k`` is 0.
        seconds: for all of them, compiling the contexts included.
        seconds_per_query: the median over queries; those of one batch share its time equally.
        items_file: JSONL that the process wrote in its folder, a line an item, in the order of
            draws, then queries: ``{"line", "draw", "prediction", "reference", "score"}``;
            ``line`` is the query's line in the validation file.
        evidence: what the most frequent answer scores, and which answers were given.
    """

    type: Literal["result"] = "result"
    model: str
    task: str
    family: str
    role: Literal["train", "heldout"]
    k: int
    shots: int
    metric: str
    value: float
    low: float
    high: float
    queries: int
    draws: int
    seconds: float
    seconds_per_query: float
    items_file: str
    evidence: Evidence


class CurveResult(BaseModel):
    """How often a greedy answer is exactly right, at every number of shots.

    Attributes:
        exact_match: the mean at 0, 1, 2, … shots.
        answers: how many answers each mean is over.
    """

    type: Literal["curve"] = "curve"
    model: str
    task: str
    exact_match: list[float]
    answers: list[int]


class PlainTextResult(BaseModel):
    """Cross-entropy on the fixed plain text, in nats a token."""

    type: Literal["plain_text"] = "plain_text"
    model: str
    cross_entropy: float
    tokens: int


class MeasuredBatch(BaseModel):
    """A micro-batch of one document.

    Attributes:
        seconds: forward and backward.
        scoring_seconds: forward alone, as a validation does it.
        peak_memory_bytes: until then.
    """

    tokens: int
    targets: int
    seconds: float
    scoring_seconds: float
    peak_memory_bytes: int


class Measured(BaseModel):
    """How fast a worker trains one base model with one kind of adapter.

    Attributes:
        start_seconds: from a trainer's start until it can train.
        optimizer_seconds: of one optimizer step, forward and backward not counted.
        checkpoint_seconds: to save one checkpoint.
        batches: micro-batches of several lengths, ascending.
        processor_share: what this process got of the processor time it wanted; less than all where
            others computed beside it. None: the system does not say.
    """

    type: Literal["measured"] = "measured"
    device: str
    dtype: str
    threads: int
    start_seconds: float
    optimizer_seconds: float
    checkpoint_seconds: float
    batches: list[MeasuredBatch]
    processor_share: float | None = None


class Failed(BaseModel):
    """The process gives up; ``code`` is one of the job failure codes."""

    type: Literal["failed"] = "failed"
    code: Literal["out_of_memory", "disk_full", "invalid_data", "engine_error"]
    message: str


Message = Annotated[
    Started
    | StepMetrics
    | CheckpointSaved
    | Trained
    | EvaluationResult
    | CurveResult
    | PlainTextResult
    | Measured
    | Failed,
    Field(discriminator="type"),
]
_ADAPTER: TypeAdapter[Message] = TypeAdapter(Message)


def report(message: Message, stream: TextIO) -> None:
    """Write one line and flush it."""
    stream.write(message.model_dump_json() + "\n")
    stream.flush()


def parse(line: str) -> Message:
    """Read one line.

    Raises:
        pydantic.ValidationError: the line is not a progress message.
    """
    return _ADAPTER.validate_json(line)
