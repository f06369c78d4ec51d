"""Small evaluations of the tiny model."""

from pathlib import Path
from typing import Any

from manyicl_core.contract.evaluation_spec import EvaluatedModel, EvaluationSpec
from manyicl_core.method.tasks import Task
from tests.unit.sample_tasks import examples_of, task_of
from tests.unit.training.specs import MOODS, SUMS


def with_queries(task: Task, pairs: list[tuple[str, str]], **changes: Any) -> Task:
    definition = task.definition.model_copy(update=changes)
    return task.model_copy(update={"definition": definition, "queries": examples_of(pairs)})


TASKS = [
    with_queries(
        MOODS,
        [("a letter is glad", "glad"), ("the letter that came today is sad", "sad"), ("it is calm", "calm")],
        metric="accuracy",
        family="letters",
    ),
    with_queries(SUMS, [("7 and 7", "14"), ("10 and 10", "20")], metric="f1", role="heldout"),
]
LETTERS = task_of([(f"the letter {letter}", letter) for letter in "abcdef"], "letters", labels=[*"abcdef"])
QUESTIONS = [f"is it {letter} or {other}?" for letter in "abcdef" for other in "xyz"]


def make_spec(model_folder: Path, models: dict[str, Path | None], **changes: Any) -> EvaluationSpec:
    """Nothing to measure yet, with the models by name."""
    named = [
        EvaluatedModel(name=name, weights_folder=str(folder) if folder else None) for name, folder in models.items()
    ]
    fields: dict[str, Any] = {
        "base_model_folder": str(model_folder),
        "models": named,
        "tasks": TASKS,
        "points": [],
        "queries": 100,
        "draws": 2,
        "seed": 5,
        "threads": 1,
    }
    return EvaluationSpec(**fields | changes)
