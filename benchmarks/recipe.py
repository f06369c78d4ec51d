"""What of many_icl's recipe matters at equal tokens: how the loss is normalised, and the sequences' length.

``python -m benchmarks.recipe --data DIR --work DIR --json FILE [--quick]``. One run of many_icl for
each variant over the trained tasks of ``benchmarks.paper_table``, then its accuracy at each number of
shots, with 95 % intervals and paired tests against the first variant, that of the comparison.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.paper_runs import Settings, describe, train, training_spec
from benchmarks.paper_scores import Scores, measure
from benchmarks.paper_table import SHOTS, TRAINED, default_model, trained_tasks
from manyicl_core.evaluation.statistics import compare, interval

LEARNING_RATE = 5e-4
VARIANTS: dict[str, dict[str, Any]] = {
    "token, 2048": {"normalization": "token", "sequence_tokens": 2048},
    "answer, 2048": {"normalization": "answer", "sequence_tokens": 2048},
    "token, 1024": {"normalization": "token", "sequence_tokens": 1024},
}


def main() -> int:
    """Train, measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of task folders")
    parser.add_argument("--model", type=Path, help="folder of the base model; the default one if left out")
    parser.add_argument("--work", type=Path, required=True, help="where finished runs are kept")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--budget-tokens", type=int, default=50_000, help="tokens a run trains on")
    parser.add_argument("--queries", type=int, default=30, help="test queries a task")
    parser.add_argument("--leave-out", nargs="*", default=[], help="trained tasks that are not measured")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="two tasks, few tokens: two minutes")
    arguments = parser.parse_args()
    names, shots, queries = (TRAINED[:2], SHOTS[:2], 8) if arguments.quick else (TRAINED, SHOTS, arguments.queries)
    budget = 4_000 if arguments.quick else arguments.budget_tokens
    real = trained_tasks(arguments.data, names)
    tasks = [task.task for task in real if task.task.definition.name not in arguments.leave_out]
    scores: dict[str, Scores] = {}
    runs: dict[str, Any] = {}
    for name, variant in VARIANTS.items():
        settings = Settings(
            model_folder=arguments.model or default_model(),
            work=arguments.work.resolve(),
            budget=budget,
            search_budget=0,
            sequence_tokens=variant["sequence_tokens"],
            seed=1,
            threads=arguments.threads,
        )
        spec = training_spec(settings, [task.task for task in real], "many_icl", LEARNING_RATE, budget)
        run = train(settings, spec.model_copy(update={"normalization": variant["normalization"]}))
        runs[name] = describe(run)
        scores[name] = measure(
            settings, run.weights, tasks, {task.definition.name: shots for task in tasks}, queries, 1
        )
    figures = {"runs": runs, "accuracy": _accuracy(scores, shots), "budget_tokens": budget, "queries": queries}
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def _accuracy(scores: dict[str, Scores], shots: list[int]) -> dict[str, dict[str, Any]]:
    """Each variant's mean over the tasks, and its difference to the first one's, at each number of shots."""
    first = next(iter(scores.values()))
    tasks = sorted({task for task, _ in first.items})
    table = Table("variant", *(f"k={k}" for k in shots))
    figures: dict[str, dict[str, Any]] = {}
    for name, mine in scores.items():
        figures[name] = {}
        cells = []
        for k in shots:
            mean = interval([mine.items[task, k] for task in tasks])
            beside = compare([(first.items[task, k], mine.items[task, k]) for task in tasks])
            figures[name][f"k={k}"] = {"mean": asdict(mean), "against_first": asdict(beside)}
            difference = beside.difference
            cells.append(
                f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]; "
                f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] p={beside.p_value:.3f}"
            )
        table.add_row(name, *cells)
    Console(width=200).print(table)
    return figures


if __name__ == "__main__":
    sys.exit(main())
