"""Small jobs for the tiny model."""

from pathlib import Path
from typing import Any

from manyicl_core.contract.progress import StepMetrics
from manyicl_core.contract.train_spec import LoraSpec, TrainSpec, ValidationSpec
from manyicl_core.method.sequences import StreamSettings
from manyicl_core.method.tasks import Example, Task, TaskDefinition, Turn
from manyicl_core.training.trainer import train
from tests.unit.sample_tasks import task_of

PUBLIC_ID = "somebody/tiny-llama"

_MOODS = ["glad", "sad", "calm"]
MOODS = task_of(
    [(f"letter {number} is {_MOODS[number % 3]}", _MOODS[number % 3]) for number in range(9)],
    "moods",
    instruction="Say the mood.",
    labels=_MOODS,
)
SUMS = task_of([(f"{number} and {number}", str(2 * number)) for number in range(6)], "sums")
TALK = Task(
    definition=TaskDefinition(name="talk", instruction="Talk."),
    demonstrations=[
        Example(
            input=f"and {number}?",
            output="yes" if number % 2 else "no, a little later",
            line=number + 1,
            earlier=[Turn(input="hello", output=f"hi {number}", trained=number % 3 == 0)],
            trained=number % 2 == 0,
        )
        for number in range(6)
    ],
)
"""Answers of very different lengths, and some without weight."""
SILENT = Task(
    definition=TaskDefinition(name="silent"),
    demonstrations=[Example(input=f"say {number}", output="no", line=number, trained=False) for number in range(6)],
)
"""No answer of this task is a target."""

CONTRARY = task_of(
    [(f"letter {number + 20} is {_MOODS[number % 3]}", _MOODS[(number + 1) % 3]) for number in range(9)],
    "moods",
    instruction="Say the mood.",
    labels=_MOODS,
)
"""Looks as ``MOODS`` does, and the better that is learnt, the worse this is answered."""


def make_spec(model_folder: Path, **changes: Any) -> TrainSpec:
    """A job of six steps over two tasks."""
    fields: dict[str, Any] = {
        "base_model": PUBLIC_ID,
        "base_model_folder": str(model_folder),
        "tasks": [MOODS, SUMS],
        "stream": StreamSettings(max_sequence_tokens=120),
        "token_budget": 1100,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "seed": 11,
        "lora": LoraSpec(rank=4, alpha=8),
        "checkpoint_every": 2,
        "threads": 1,
    }
    return TrainSpec(**fields | changes)


def stopping_early(model_folder: Path, **changes: Any) -> TrainSpec:
    """A job whose validation loss falls and rises again, long before the last step."""
    fields: dict[str, Any] = {
        "tasks": [MOODS],
        "token_budget": 8000,
        "learning_rate": 1e-1,
        "schedule": "constant",
        "validation": ValidationSpec(tasks=[CONTRARY], sequences=3, every=1, patience=2),
    }
    return make_spec(model_folder, **fields | changes)


def steps_of(
    spec: TrainSpec, folder: Path, checkpoint: Path | None = None, best: Path | None = None
) -> list[StepMetrics]:
    """Train in ``folder``; the metrics of every step, without how long it took."""
    folder.mkdir(exist_ok=True)
    messages = train(spec, folder, checkpoint, best)
    return [message.model_copy(update={"seconds": 0.0}) for message in messages if isinstance(message, StepMetrics)]


def checkpoint_of(folder: Path, step: int) -> Path:
    """Where the run in ``folder`` leaves its checkpoint of ``step``."""
    return folder / "checkpoints" / f"step-{step:06d}"


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a flat folder by its name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def adapter_bytes(folder: Path) -> bytes:
    return (folder / "weights" / "adapter_model.safetensors").read_bytes()
