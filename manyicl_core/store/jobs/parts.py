"""What a job trains one after the other: everything at once, or, dedicated, a task at a time."""

from dataclasses import dataclass

from manyicl_core.method.tasks import Task
from manyicl_core.store.models.task_ids import task_model_id
from manyicl_core.store.tables import Job


@dataclass(frozen=True, slots=True)
class Part:
    """What one trainer process trains.

    Attributes:
        number: its place among the ``count`` parts of the job, from 0.
        task: the one task of a dedicated job's part; None: all trained tasks.
    """

    number: int
    count: int
    task: str | None


def parts_of(job: Job, tasks: list[Task]) -> list[Part]:
    """The job's parts in the order in which they are trained."""
    if job.options["objective"] != "dedicated":
        return [Part(0, 1, None)]
    trained = [task.definition.name for task in tasks if task.definition.role == "train"]
    return [Part(number, len(trained), name) for number, name in enumerate(trained)]


def first_step(job: Job, part: Part) -> int:
    """How many steps lie before the part's first: steps count on over a job's parts."""
    if part.task is None:
        return 0
    assert job.plan is not None
    step = job.plan["tasks"][part.task]["first_step"]
    assert isinstance(step, int)
    return step


def model_id(job: Job, project_name: str, task: str | None) -> str:
    """The public id of a job's model: ``ft:<base>:<project>:<suffix>:<id>``, and ``:<task>`` if dedicated.

    A dedicated job's model and the task of any other are named in the same way.
    """
    short = job.id.removeprefix("ftjob-")[:8]
    whole = f"ft:{job.base_model}:{project_name}:{job.suffix or ''}:{short}"
    return whole if task is None else task_model_id(whole, task)


def checkpoint_model_id(model: str, step: int) -> str:
    """The public id of a model's checkpoint."""
    return f"{model}:ckpt-step-{step}"
