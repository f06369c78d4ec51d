"""What a client may ask of an evaluation."""

from typing import Annotated

from pydantic import Field

from manyicl_core.method.tasks import MAX_TASKS, TaskDefinition
from manyicl_core.request_body import RequestBody

_Id = Annotated[str, Field(min_length=1, max_length=256)]


class EvaluationOptions(RequestBody):
    """What is measured of each model and task: k of each ``shots``, on queries of the validation file.

    ``queries`` caps the queries a task; ``draws`` is how many draws of demonstrations each is asked
    with. With ``curve_shots`` the exact match at every k up to it is measured in one pass.
    """

    shots: list[Annotated[int, Field(ge=0, le=4096)]] = Field(default=[0, 4, 16], min_length=1, max_length=16)
    queries: int = Field(default=100, ge=1, le=10_000)
    draws: int = Field(default=1, ge=1, le=20)
    curve_shots: int = Field(default=0, ge=0, le=4096)


class CreateEvaluation(EvaluationOptions):
    """The body of ``POST /v1/evaluations``.

    The tasks are those of the first fine-tuned model's job, or come from a training file
    (demonstrations) and a validation file (queries), with ``task_definitions`` as a job has them.
    ``tasks`` names those to measure; with ``forgetting`` there may be none, and the plain text alone is measured.
    """

    model: _Id | None = None
    models: Annotated[list[_Id], Field(min_length=1, max_length=16)] | None = None
    tasks: Annotated[list[_Id], Field(max_length=MAX_TASKS)] | None = None
    training_file: str | None = Field(default=None, max_length=64)
    validation_file: str | None = Field(default=None, max_length=64)
    task_definitions: list[TaskDefinition] = Field(default=[], max_length=MAX_TASKS)
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    forgetting: bool = False
