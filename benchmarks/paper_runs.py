"""The training runs behind the paper's comparison: each made once and kept, by what decides it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from benchmarks.task_folders import RealTask
from manyicl_core.child_process import job_environment
from manyicl_core.contract.progress import Failed, StepMetrics, Trained, parse
from manyicl_core.contract.train_spec import LoraSpec, TrainSpec, ValidationSpec
from manyicl_core.method.objectives import Objective
from manyicl_core.method.sequences import StreamSettings
from manyicl_core.method.tasks import Task
from manyicl_core.training.checkpoint import config_hash

METHODS: tuple[Objective, ...] = get_args(Objective)
_VALIDATED_SEQUENCES = 24
DEDICATED_STEP_TOKENS = 512
"""A dedicated run has a task's share of the tokens only, so its steps are smaller."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What all runs share."""

    model_folder: Path
    work: Path
    budget: int
    search_budget: int
    sequence_tokens: int
    seed: int
    threads: int


@dataclass(frozen=True, slots=True)
class Run:
    """A finished training run.

    Attributes:
        weights: folder of the adapter; ``checkpoints`` maps tokens trained to earlier ones.
        valid_loss: after the last step, where it was measured.
    """

    weights: Path
    checkpoints: dict[int, Path]
    tokens: int
    answers: int
    steps: int
    seconds: float
    valid_loss: float | None


def search(settings: Settings, tasks: list[RealTask], objective: Objective, rates: list[float]) -> dict[float, float]:
    """Validation loss under the objective of a short run at each learning rate."""
    validation = ValidationSpec(
        tasks=[_with_demonstrations(real.task, real) for real in tasks],
        sequences=_VALIDATED_SEQUENCES,
        every=10**6,
    )
    losses = {}
    for rate in rates:
        spec = training_spec(settings, [real.task for real in tasks], objective, rate, settings.search_budget)
        run = train(settings, spec.model_copy(update={"validation": validation}))
        assert run.valid_loss is not None
        losses[rate] = run.valid_loss
    return losses


def tune(settings: Settings, tasks: list[RealTask], objective: Objective, rate: float) -> Run:
    """One adapter over all tasks."""
    return train(settings, training_spec(settings, [real.task for real in tasks], objective, rate, settings.budget))


def tune_dedicated(settings: Settings, tasks: list[RealTask], rate: float) -> dict[str, Run]:
    """One adapter a task, trained by ``zero_shot`` on an equal part of the budget."""
    share = settings.budget // len(tasks)
    runs = {}
    for real in tasks:
        spec = training_spec(settings, [real.task], "zero_shot", rate, share)
        smaller = StreamSettings(max_sequence_tokens=DEDICATED_STEP_TOKENS)
        runs[real.task.definition.name] = train(settings, spec.model_copy(update={"stream": smaller}))
    return runs


def train(settings: Settings, spec: TrainSpec) -> Run:
    """The run of ``spec``, out of the work folder where it is there already."""
    folder = settings.work / "runs" / config_hash(spec)[:16]
    messages = folder / "messages.jsonl"
    if not (folder / "weights" / "manyicl.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
        run_process("manyicl_core.training", folder, messages)
    steps: list[StepMetrics] = []
    weights = None
    for line in messages.read_text(encoding="utf-8").splitlines():
        message = parse(line)
        if isinstance(message, StepMetrics):
            steps.append(message)
        elif isinstance(message, Trained):
            weights = Path(message.folder)
    assert weights is not None
    tokens_at = {}
    tokens = 0
    for step in steps:
        tokens += step.tokens
        tokens_at[step.step] = tokens
    return Run(
        weights=weights,
        checkpoints={
            tokens_at[int(path.name.removeprefix("step-"))]: path for path in sorted(folder.glob("checkpoints/step-*"))
        },
        tokens=tokens,
        answers=sum(step.answers for step in steps),
        steps=len(steps),
        seconds=sum(step.seconds for step in steps),
        valid_loss=steps[-1].valid_loss,
    )


def run_process(module: str, folder: Path, output: Path) -> None:
    """Run one of the product's processes over ``folder``, its progress lines into ``output``."""
    with output.open("w", encoding="utf-8") as lines:
        subprocess.run(
            [sys.executable, "-m", module, str(folder)],
            env=job_environment(dict(os.environ)),
            stdout=lines,
            check=False,
        )
    last = output.read_text(encoding="utf-8").splitlines()[-1:]
    message = parse(last[0]) if last else None
    if message is None or isinstance(message, Failed):
        sys.exit(f"{module} failed in {folder}: {message.message if message else 'no progress; see above'}")


def training_spec(settings: Settings, tasks: list[Task], objective: Objective, rate: float, budget: int) -> TrainSpec:
    """A run over ``tasks`` of one sequence a step, until ``budget`` tokens are trained."""
    stream = StreamSettings(max_sequence_tokens=settings.sequence_tokens)
    steps = budget // settings.sequence_tokens
    return TrainSpec(
        base_model=settings.model_folder.name,
        base_model_folder=str(settings.model_folder),
        tasks=[task.model_copy(update={"queries": []}) for task in tasks],
        objective=objective,
        stream=stream,
        token_budget=budget,
        batch_size=1,
        learning_rate=rate,
        seed=settings.seed,
        lora=LoraSpec(),
        checkpoint_every=max(1, steps // 4),
        threads=settings.threads,
    )


def _with_demonstrations(task: Task, real: RealTask) -> Task:
    return task.model_copy(update={"demonstrations": real.validation, "queries": []})


def describe(run: Run) -> dict[str, object]:
    """A run's figures for the report."""
    return {
        "tokens": run.tokens,
        "supervised_answers": run.answers,
        "steps": run.steps,
        "seconds": round(run.seconds, 1),
        "tokens_per_second": round(run.tokens / run.seconds, 1),
    }
