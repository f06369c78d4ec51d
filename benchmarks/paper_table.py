"""The paper's comparison: base, zero_shot, few_shot, many_icl and dedicated at equal tokens.

``python -m benchmarks.paper_table --data DIR --budget-tokens N --json FILE --work DIR [--quick]``.

Every method searches its learning rate over the same values, by the validation loss under its own
objective, and then trains on the same number of tokens of the same tasks; ``dedicated`` shares
them out over one adapter a task. ``FILE`` gets all figures, and beside it ``.md`` the tables and
``.png`` the metric against k. Finished runs are kept in the work folder, and a second start goes on.
"""

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.paper_report import BASE, DEDICATED, Measured, draw, markdown, summary
from benchmarks.paper_runs import METHODS, Run, Settings, describe, search, tune, tune_dedicated
from benchmarks.paper_scores import Scores, measure, over_seeds
from benchmarks.task_folders import RealTask, read_task
from manyicl_core.base_models.catalog import base_model_folder, find_base_model
from manyicl_core.method.objectives import Objective
from manyicl_core.method.tasks import Task
from manyicl_core.settings import DEFAULT_BASE_MODEL

TRAINED = ["trec", "sst2", "banking77", "tweet_emotion", "snli", "sick", "squad", "agnews_headline", "svamp"]
HELD_OUT = ["customer_reviews", "tweet_irony", "med", "strategyqa", "multiarith"]
SHOTS = [0, 4, 16, 48]
RATES = [5e-4, 1e-3]
VALIDATION_EXAMPLES = 40


def main() -> int:
    """Train, measure, report."""
    arguments = _arguments()
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    trained, held_out, shots = TRAINED, HELD_OUT, SHOTS
    queries, draws, budget, search_budget = arguments.queries, arguments.draws, arguments.budget_tokens, 50_000
    if arguments.quick:
        trained, held_out, shots = TRAINED[:2], HELD_OUT[:1], [0, 4]
        queries, draws, budget, search_budget = 8, 1, 4_000, 1_000
    real = trained_tasks(arguments.data, trained)
    measured_tasks = [name for name in trained if name not in arguments.leave_out]
    tasks = [task.task for task in real if task.task.definition.name in measured_tasks]
    tasks += [read_task(arguments.data, name, 0).task for name in held_out]
    by_seed: list[dict[str, Scores]] = []
    runs: dict[str, Any] = {}
    for seed in range(1, arguments.seeds + 1):
        settings = Settings(
            model_folder=arguments.model or default_model(),
            work=arguments.work,
            budget=budget,
            search_budget=search_budget,
            sequence_tokens=512 if arguments.quick else arguments.sequence_tokens,
            seed=seed,
            threads=arguments.threads,
        )
        trained_runs, dedicated, found = _train(settings, real)
        runs[f"seed {seed}"] = found
        by_seed.append(_measure(settings, trained_runs, dedicated, tasks, shots, queries, draws))
    measured = Measured(
        scores={method: _pooled([scores[method] for scores in by_seed]) for method in by_seed[0]},
        tasks={"train": measured_tasks, "heldout": held_out},
        shots=shots,
        draws=draws * arguments.seeds,
    )
    figures = {
        **summary(measured),
        "runs": runs,
        "setting": {
            "command": " ".join(sys.orig_argv[1:]),
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
            "trained_on": trained,
            "queries": queries,
            "draws": draws,
            "sequence_tokens": settings.sequence_tokens,
            "budget_tokens": budget,
        },
    }
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    arguments.json.with_suffix(".md").write_text(markdown(measured, figures), encoding="utf-8")
    draw(measured, figures, arguments.json.with_suffix(".png"))
    return 0


def trained_tasks(data: Path, names: list[str]) -> list[RealTask]:
    """The tasks that every method trains on, without their validation part."""
    return [read_task(data, name, VALIDATION_EXAMPLES) for name in names]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of task folders")
    parser.add_argument("--model", type=Path, help="folder of the base model; the default one if left out")
    parser.add_argument("--budget-tokens", type=int, default=200_000, help="tokens a method trains on")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="the fastest there is if left out")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--work", type=Path, required=True, help="where finished runs are kept")
    parser.add_argument("--sequence-tokens", type=int, default=2048)
    parser.add_argument("--queries", type=int, default=60, help="test queries a task")
    parser.add_argument("--draws", type=int, default=2, help="draws of demonstrations")
    parser.add_argument("--leave-out", nargs="*", default=[], help="trained tasks too costly to measure here")
    parser.add_argument("--seeds", type=int, default=1, help="training seeds")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="three tasks, few tokens: two minutes")
    arguments = parser.parse_args()
    arguments.work = arguments.work.resolve()
    return arguments


def default_model() -> Path:
    """Folder of the default base model."""
    entry = find_base_model(DEFAULT_BASE_MODEL)
    assert entry is not None
    return base_model_folder(entry)


def _train(settings: Settings, tasks: list[RealTask]) -> tuple[dict[str, Run], dict[str, Run], dict[str, Any]]:
    """One run a method, one dedicated run a task, and their figures."""
    runs: dict[str, Run] = {}
    found: dict[str, Any] = {}
    for objective in METHODS:
        rate, losses = best_rate(settings, tasks, objective)
        runs[objective] = tune(settings, tasks, objective, rate)
        found[objective] = {"learning_rate": rate, "validation_losses": losses, **describe(runs[objective])}
        print(objective, found[objective], flush=True)  # noqa: T201
    rate = found["zero_shot"]["learning_rate"]
    dedicated = tune_dedicated(settings, tasks, rate)
    found[DEDICATED] = {"learning_rate": rate, "tasks": {name: describe(run) for name, run in dedicated.items()}}
    return runs, dedicated, found


def best_rate(settings: Settings, tasks: list[RealTask], objective: Objective) -> tuple[float, dict[float, float]]:
    """The learning rate with the lowest validation loss, and all the losses."""
    losses = search(settings, tasks, objective, RATES)
    return min(losses, key=losses.__getitem__), losses


def _measure(
    settings: Settings,
    runs: dict[str, Run],
    dedicated: dict[str, Run],
    tasks: list[Task],
    shots: list[int],
    queries: int,
    draws: int,
) -> dict[str, Scores]:
    """Every method over every task that it answers."""
    every = {task.definition.name: shots for task in tasks}
    scores = {BASE: measure(settings, None, tasks, every, queries, draws)}
    for method, run in runs.items():
        scores[method] = measure(settings, run.weights, tasks, every, queries, draws)
    own = [
        measure(settings, dedicated[task.definition.name].weights, [task], every, queries, draws)
        for task in tasks
        if task.definition.name in dedicated
    ]
    scores[DEDICATED] = Scores({key: items for each in own for key, items in each.items.items()}, None)
    return scores


def _pooled(seeds: list[Scores]) -> Scores:
    texts = [scores.plain_text for scores in seeds if scores.plain_text is not None]
    return Scores(
        {key: over_seeds([scores.items[key] for scores in seeds]) for key in seeds[0].items},
        sum(texts) / len(texts) if texts else None,
    )


if __name__ == "__main__":
    sys.exit(main())
