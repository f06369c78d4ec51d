"""The evaluation process's input: one JSON file, written by the supervisor. No torch."""

from pydantic import BaseModel, ConfigDict

from manyicl_core.method.tasks import Task


class Point(BaseModel):
    """One task at one number of shots."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    k: int


class EvaluationSpec(BaseModel):
    """What to measure.

    Attributes:
        tasks: tasks with their queries; those without queries are left out.
        points: what to measure, in order.
        queries: at most so many queries a task, from the start of its list.
        draws: how many draws of demonstrations are averaged.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_model_folder: str
    adapter_folder: str
    tasks: list[Task]
    points: list[Point]
    queries: int
    draws: int
    seed: int
    threads: int
