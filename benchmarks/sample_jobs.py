"""Training jobs over the sample tasks, for benchmarks of the trainer's speed. No torch."""

import json
import sys
from pathlib import Path

from benchmarks.turns import Side
from manyicl_core.base_models.catalog import SMOLLM2_135M
from manyicl_core.base_models.pull import pull_base_model
from manyicl_core.child_process import job_environment
from manyicl_core.contract.train_spec import LoraSpec, TrainSpec
from manyicl_core.method.objectives import Objective
from manyicl_core.method.sequences import StreamSettings
from manyicl_core.method.tasks import Example, Task, TaskDefinition
from manyicl_core.settings import get_settings

_TASKS = Path(__file__).resolve().parents[1] / "examples" / "tasks"


def sample_tasks() -> list[Task]:
    """The sample tasks, each with all its examples, 120 of them, to train on."""
    tasks = []
    for folder in sorted(_TASKS.iterdir()):
        definition = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        lines = [
            line
            for part in ("train", "test")
            for line in (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        examples = [Example(line=number, **json.loads(line)) for number, line in enumerate(lines, start=1)]
        named = TaskDefinition(name=definition["name"], instruction=definition["instruction"])
        tasks.append(Task(definition=named, demonstrations=examples))
    return tasks


def pooled_task() -> Task:
    """All examples of all sample tasks as one task: enough of them for sequences of any length."""
    examples = [example for task in sample_tasks() for example in task.demonstrations]
    numbered = [example.model_copy(update={"line": line}) for line, example in enumerate(examples, start=1)]
    return Task(definition=TaskDefinition(name="all_sample_tasks"), demonstrations=numbered)


def speed_job(
    tasks: list[Task],
    stream: StreamSettings,
    steps: int,
    objective: Objective = "many_icl",
    adapter: Path | None = None,
) -> TrainSpec:
    """A job of at least ``steps`` steps of one sequence, with LoRA of rank 16 and a constant learning rate."""
    return TrainSpec(
        base_model=SMOLLM2_135M.id,
        base_model_folder=str(pull_base_model(SMOLLM2_135M, say=lambda line: None)),
        tasks=tasks,
        objective=objective,
        stream=stream,
        token_budget=steps * stream.max_sequence_tokens,
        batch_size=1,
        learning_rate=5e-4,
        schedule="constant",
        warmup_fraction=0.0,
        seed=1,
        lora=LoraSpec(rank=16, alpha=32),
        start_folder=str(adapter) if adapter else None,
        checkpoint_every=1_000_000,
        threads=get_settings().threads,
    )


def our_command(spec: TrainSpec, file: Path, *options: str) -> list[str]:
    """Write ``spec`` to ``file``; the command of our side of it."""
    file.write_text(spec.model_dump_json(), encoding="utf-8")
    return [sys.executable, "-m", "benchmarks.our_side", str(file), *options]


def our_side(spec: TrainSpec, file: Path, *options: str) -> Side:
    """Our trainer, started as the worker starts it."""
    return Side(our_command(spec, file, *options), file.with_suffix(".log"), job_environment({}))
