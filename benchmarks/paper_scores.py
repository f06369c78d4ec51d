"""Scores of the compared models: measured by the product's evaluation process, each model once."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.paper_runs import Settings, run_process
from manyicl_core.contract.evaluation_spec import EvaluatedModel, EvaluationSpec, Point
from manyicl_core.contract.progress import EvaluationResult, PlainTextResult, parse
from manyicl_core.evaluation.statistics import Items, read_items
from manyicl_core.method.tasks import Task


@dataclass(frozen=True, slots=True)
class Scores:
    """One method's answers: ``items[task, k]``; ``plain_text`` is its cross-entropy, nats a token."""

    items: dict[tuple[str, int], Items]
    plain_text: float | None


def measure(
    settings: Settings, weights: Path | None, tasks: list[Task], shots: dict[str, list[int]], queries: int, draws: int
) -> Scores:
    """Every task at its numbers of shots, out of the work folder where it is there already.

    Args:
        weights: an adapter's folder; None: the base model.
        shots: the numbers of shots of each task, by its name.
    """
    name = weights.parent.name if weights else "base"
    spec = EvaluationSpec(
        base_model_folder=str(settings.model_folder),
        models=[EvaluatedModel(name=name, weights_folder=str(weights) if weights else None)],
        tasks=tasks,
        points=[
            Point(model=name, task=task.definition.name, k=k) for task in tasks for k in shots[task.definition.name]
        ],
        queries=queries,
        draws=draws,
        seed=settings.seed,
        plain_text=[name],
        threads=settings.threads,
    )
    content = spec.model_dump_json()
    folder = settings.work / "evaluations" / hashlib.sha256(content.encode()).hexdigest()[:16]
    messages = folder / "messages.jsonl"
    finished = folder / "finished"
    if not finished.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_text(content, encoding="utf-8")
        run_process("manyicl_core.evaluation", folder, messages)
        finished.touch()
    items: dict[tuple[str, int], Items] = {}
    plain_text = None
    for line in messages.read_text(encoding="utf-8").splitlines():
        message = parse(line)
        if isinstance(message, EvaluationResult):
            with (folder / message.items_file).open(encoding="utf-8") as rows:
                items[message.task, message.k] = read_items(message.metric, rows)
        elif isinstance(message, PlainTextResult):
            plain_text = message.cross_entropy
    return Scores(items, plain_text)


def over_shots(items: list[Items], draws: int) -> Items:
    """The mean over several numbers of shots as one set of items, so that intervals know what is paired.

    Without shots all draws of a seed are one, which then stands for each of them.
    """
    scores = [np.repeat(each.scores, draws // each.scores.shape[1], axis=1) for each in items]
    return Items("mean", items[0].lines, np.mean(scores, axis=0), items[0].references, ())


def over_seeds(seeds: list[Items]) -> Items:
    """Several training seeds as further draws of the same items."""
    first = seeds[0]
    predictions = tuple(
        tuple(text for each in seeds for text in each.predictions[item]) for item in range(len(first.predictions))
    )
    scores = np.concatenate([each.scores for each in seeds], axis=1)
    return Items(first.metric, first.lines, scores, first.references, predictions)
