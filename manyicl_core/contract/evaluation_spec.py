"""The evaluation process's input: one JSON file, written by the supervisor. No torch."""

from pydantic import BaseModel, ConfigDict

from manyicl_core.method.tasks import Task


class EvaluatedModel(BaseModel):
    """One of the models that are compared.

    Attributes:
        name: what the client named: the base model's id, or ``ft:…``.
        weights_folder: a PEFT adapter (``adapter_config.json``) or a whole model
            (``config.json``); None: the base model.
        tasks: a dedicated adapter answers its own task only; None: every task.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    weights_folder: str | None
    tasks: list[str] | None = None


class Point(BaseModel):
    """One model at one task with ``k`` demonstrations in its context."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    task: str
    k: int


class CurvePoint(BaseModel):
    """One model's exact-match curve over every number of shots of one task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    task: str


class EvaluationSpec(BaseModel):
    """What to measure; an earlier attempt's results stand and are not asked for again.

    Attributes:
        tasks: tasks with their queries.
        points: what is left to measure.
        queries: at most so many queries a task, from the start of its list.
        draws: how many draws of demonstrations each query is asked with.
        curves: exact-match curves that are left to measure.
        curve_shots: the largest number of shots of the curves.
        plain_text: names of the models whose cross-entropy on the fixed plain text is left to
            measure.
        threads: CPU threads.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_model_folder: str
    models: list[EvaluatedModel]
    tasks: list[Task]
    points: list[Point]
    queries: int
    draws: int
    seed: int
    curves: list[CurvePoint] = []
    curve_shots: int = 0
    plain_text: list[str] = []
    threads: int
