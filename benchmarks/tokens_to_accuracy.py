"""Accuracy on the trained tasks against tokens trained, many_icl beside few_shot, at each number of shots.

``python -m benchmarks.tokens_to_accuracy --data DIR --work DIR --json FILE [--quick]`` measures the
checkpoints of the runs of ``benchmarks.paper_table`` (made here if they are not there yet), and says
how many tokens many_icl needs for the accuracy that few_shot ends with. ``FILE`` gets the figures,
and a ``.png`` beside it the curves.
"""

import argparse
import json
import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot

from benchmarks.paper_runs import Settings, tune
from benchmarks.paper_scores import measure
from benchmarks.paper_table import SHOTS, TRAINED, best_rate, default_model, trained_tasks
from manyicl_core.evaluation.statistics import interval
from manyicl_core.method.objectives import Objective
from manyicl_core.method.tasks import Task

matplotlib.use("Agg")

COMPARED: tuple[Objective, ...] = ("many_icl", "few_shot")
Curve = dict[int, dict[int, float]]
"""Mean of the tasks' metrics by tokens trained, then by number of shots."""


def main() -> int:
    """Measure both curves and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of task folders")
    parser.add_argument("--model", type=Path, help="folder of the base model; the default one if left out")
    parser.add_argument("--work", type=Path, required=True, help="where finished runs are kept")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--budget-tokens", type=int, default=200_000, help="tokens a run trains on")
    parser.add_argument("--sequence-tokens", type=int, default=2048)
    parser.add_argument("--queries", type=int, default=30, help="test queries a task")
    parser.add_argument("--leave-out", nargs="*", default=[], help="trained tasks that are not measured")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="two tasks, few tokens: two minutes")
    arguments = parser.parse_args()
    names, shots, queries = (TRAINED[:2], SHOTS[:2], 8) if arguments.quick else (TRAINED, SHOTS, arguments.queries)
    settings = Settings(
        model_folder=arguments.model or default_model(),
        work=arguments.work.resolve(),
        budget=4_000 if arguments.quick else arguments.budget_tokens,
        search_budget=1_000 if arguments.quick else 50_000,
        sequence_tokens=512 if arguments.quick else arguments.sequence_tokens,
        seed=1,
        threads=arguments.threads,
    )
    real = trained_tasks(arguments.data, names)
    tasks = [task.task for task in real if task.task.definition.name not in arguments.leave_out]
    base = _means(settings, None, tasks, shots, queries)
    curves: dict[str, Curve] = {}
    for objective in COMPARED:
        rate, _ = best_rate(settings, real, objective)
        run = tune(settings, real, objective, rate)
        points = {**run.checkpoints, run.tokens: run.weights}
        curves[objective] = {0: base} | {
            tokens: _means(settings, weights, tasks, shots, queries) for tokens, weights in points.items()
        }
    figures: dict[str, Any] = {
        "curves": curves,
        "tokens_ratio": {f"k={k}": tokens_ratio(curves["few_shot"], curves["many_icl"], k) for k in shots},
        "queries": queries,
    }
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    _draw(curves, shots, arguments.json.with_suffix(".png"))
    print(json.dumps(figures["tokens_ratio"]))  # noqa: T201
    return 0


def tokens_ratio(slow: Curve, fast: Curve, k: int) -> float | None:
    """Tokens after which ``fast`` first has the best that ``slow`` reaches, over the tokens ``slow`` takes for it.

    Linear between the measured points; None when ``fast`` never gets there, or ``slow`` never
    rises above its start.
    """
    target = max(point[k] for point in slow.values())
    taken = min(tokens for tokens, point in slow.items() if point[k] == target)
    if taken == 0:
        return None
    places = sorted(fast)
    for before, after in pairwise(places):
        low, high = fast[before][k], fast[after][k]
        if low < target <= high:
            return float(np.interp(target, [low, high], [before, after])) / taken
    return None


def _means(
    settings: Settings, weights: Path | None, tasks: list[Task], shots: list[int], queries: int
) -> dict[int, float]:
    names = [task.definition.name for task in tasks]
    scores = measure(settings, weights, tasks, dict.fromkeys(names, shots), queries, 1)
    return {k: interval([scores.items[name, k] for name in names]).value for k in shots}


def _draw(curves: dict[str, Curve], shots: list[int], path: Path) -> None:
    figure, axes = pyplot.subplots(1, len(shots), figsize=(3.2 * len(shots), 3.4), sharey=True)
    for axis, k in zip(axes, shots, strict=True):
        for objective, curve in curves.items():
            axis.plot(list(curve), [point[k] for point in curve.values()], marker="o", label=objective)
        axis.set_title(f"k = {k}")
        axis.set_xlabel("tokens trained")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean of the trained tasks' metrics")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
