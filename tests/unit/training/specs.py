"""Small jobs for the tiny model."""

from pathlib import Path
from typing import Any

from manyicl_core.contract.progress import StepMetrics
from manyicl_core.contract.train_spec import LoraSpec, TrainSpec
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


def make_spec(model_folder: Path, **changes: Any) -> TrainSpec:
    """A job of six steps over two tasks."""
    fields: dict[str, Any] = {
        "base_model": PUBLIC_ID,
        "base_model_folder": str(model_folder),
        "tasks": [MOODS, SUMS],
        "max_sequence_tokens": 120,
        "token_budget": 1100,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "seed": 11,
        "lora": LoraSpec(rank=4, alpha=8),
        "checkpoint_every": 2,
        "threads": 1,
    }
    return TrainSpec(**fields | changes)


def steps_of(spec: TrainSpec, folder: Path, checkpoint: Path | None = None) -> list[StepMetrics]:
    """Train in ``folder``; the metrics of every step, without how long it took."""
    folder.mkdir(exist_ok=True)
    messages = train(spec, folder, checkpoint)
    return [message.model_copy(update={"seconds": 0.0}) for message in messages if isinstance(message, StepMetrics)]


def adapter_bytes(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()
