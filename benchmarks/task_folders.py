"""Real tasks from folders: ``NAME/task.json``, ``NAME/train.jsonl`` and ``NAME/test.jsonl``."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from manyicl_core.method.tasks import Example, Task, TaskDefinition

_FIELDS = ("name", "instruction", "family", "labels", "metric", "role")


@dataclass(frozen=True, slots=True)
class RealTask:
    """A task, its train part cut in two.

    Attributes:
        task: what is trained on or shown, and the test queries.
        validation: train examples that are neither trained on nor shown.
    """

    task: Task
    validation: list[Example]


def read_task(data: Path, name: str, validation: int) -> RealTask:
    """One task; its test lines shuffled once, its last ``validation`` train lines (shuffled once) put aside."""
    content = json.loads((data / name / "task.json").read_text(encoding="utf-8"))
    definition = TaskDefinition.model_validate({field: content[field] for field in _FIELDS})
    train, test = (_examples(data / name / f"{part}.jsonl") for part in ("train", "test"))
    kept = train[: len(train) - validation]
    return RealTask(Task(definition=definition, demonstrations=kept, queries=test), train[len(kept) :])


def _examples(path: Path) -> list[Example]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    examples = [Example(input=row["input"], output=row["output"], line=line) for line, row in enumerate(rows, start=1)]
    random.Random(0).shuffle(examples)
    return examples
