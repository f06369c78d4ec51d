"""What the comparison shows: means over tasks with intervals, paired tests, tables and a picture."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot

from benchmarks.paper_scores import Scores, over_shots
from manyicl_core.evaluation.statistics import Items, compare, interval

matplotlib.use("Agg")

BASE = "base"
DEDICATED = "dedicated"
_GROUPS = {"train": "trained tasks", "heldout": "held-out tasks"}
_COMPARED = {
    "train": [("many_icl", "few_shot"), ("many_icl", "zero_shot"), ("many_icl", BASE), (DEDICATED, "many_icl")],
    "heldout": [("many_icl", BASE), ("few_shot", BASE), ("zero_shot", BASE), ("many_icl", "few_shot")],
}


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that was measured.

    Attributes:
        scores: by method.
        tasks: names of the tasks of each role.
        shots: the numbers of shots that every task was measured at.
        draws: how many draws of demonstrations, over all seeds, where there are any.
    """

    scores: dict[str, Scores]
    tasks: dict[str, list[str]]
    shots: list[int]
    draws: int

    def at(self, method: str, role: str, k: int) -> list[Items]:
        """The method's items of every task of a role at ``k`` shots."""
        return [self.scores[method].items[task, k] for task in self.tasks[role]]

    def methods(self, role: str) -> list[str]:
        """Those that answer the tasks of a role: dedicated adapters answer trained tasks only."""
        return [method for method in self.scores if role == "train" or method != DEDICATED]


def summary(measured: Measured) -> dict[str, Any]:
    """All figures of the report, as JSON."""
    return {
        "means": {
            role: {
                method: {
                    **{f"k={k}": asdict(interval(measured.at(method, role, k))) for k in measured.shots},
                    "mean_over_k": asdict(interval(_over_k(measured, method, role))),
                }
                for method in measured.methods(role)
            }
            for role in measured.tasks
        },
        "comparisons": {role: _comparisons(measured, role) for role in measured.tasks},
        "gap_to_dedicated_closed": _gap_closed(measured),
        "plain_text_cross_entropy": {
            method: scores.plain_text for method, scores in measured.scores.items() if scores.plain_text is not None
        },
        "tasks": {
            task: {
                method: {
                    f"k={k}": asdict(interval([items])) for (name, k), items in scores.items.items() if name == task
                }
                for method, scores in measured.scores.items()
                if any(name == task for name, _ in scores.items)
            }
            for names in measured.tasks.values()
            for task in names
        },
    }


def _over_k(measured: Measured, method: str, role: str) -> list[Items]:
    by_shots = [measured.at(method, role, k) for k in measured.shots]
    return [over_shots(list(task), measured.draws) for task in zip(*by_shots, strict=True)]


def _best_k(measured: Measured, method: str, role: str) -> int:
    return max(measured.shots, key=lambda k: interval(measured.at(method, role, k)).value)


def _comparisons(measured: Measured, role: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for better, other in _COMPARED[role]:
        pairs = {f"k={k}": (measured.at(other, role, k), measured.at(better, role, k)) for k in measured.shots}
        pairs["mean_over_k"] = (_over_k(measured, other, role), _over_k(measured, better, role))
        best = {method: _best_k(measured, method, role) for method in (better, other)}
        pairs["best_k_each"] = (
            [over_shots([items], measured.draws) for items in measured.at(other, role, best[other])],
            [over_shots([items], measured.draws) for items in measured.at(better, role, best[better])],
        )
        for where, (first, second) in pairs.items():
            compared = compare(list(zip(first, second, strict=True)))
            rows.append({"model": better, "against": other, "where": where, **asdict(compared)})
    return rows


def _gap_closed(measured: Measured) -> float:
    """How much of the way from the base's best k-shot to the dedicated adapters' best many_icl goes."""
    best = {
        method: interval(measured.at(method, "train", _best_k(measured, method, "train"))).value
        for method in (BASE, "many_icl", DEDICATED)
    }
    return (best["many_icl"] - best[BASE]) / (best[DEDICATED] - best[BASE])


def markdown(measured: Measured, figures: dict[str, Any]) -> str:
    """The tables: means of each role against k, then every task at each k."""
    lines: list[str] = []
    columns = [*(f"k={k}" for k in measured.shots), "mean_over_k"]
    for role, title in _GROUPS.items():
        lines += ["", f"| mean of {len(measured.tasks[role])} {title} | " + " | ".join(columns) + " |"]
        lines.append("|---|" + "---|" * len(columns))
        for method, row in figures["means"][role].items():
            cells = [f"{row[c]['value']:.3f} [{row[c]['low']:.3f}, {row[c]['high']:.3f}]" for c in columns]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines += ["", f"| {title}: difference | " + " | ".join([*columns, "best_k_each"]) + " |"]
        lines.append("|---|" + "---|" * (len(columns) + 1))
        pairs = {(row["model"], row["against"]) for row in figures["comparisons"][role]}
        for better, other in sorted(pairs):
            found = {
                row["where"]: row
                for row in figures["comparisons"][role]
                if (row["model"], row["against"]) == (better, other)
            }
            cells = [
                f"{found[c]['difference']['value']:+.3f} [{found[c]['difference']['low']:+.3f}, "
                f"{found[c]['difference']['high']:+.3f}] p={found[c]['p_value']:.3f}"
                for c in [*columns, "best_k_each"]
            ]
            lines.append(f"| {better} − {other} | " + " | ".join(cells) + " |")
    lines += ["", "| task | method | " + " | ".join(f"k={k}" for k in measured.shots) + " |"]
    lines.append("|---|---|" + "---|" * len(measured.shots))
    for task, methods in figures["tasks"].items():
        for method, row in methods.items():
            cells = [f"{row[f'k={k}']['value']:.3f}" if f"k={k}" in row else "–" for k in measured.shots]
            lines.append(f"| {task} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines).strip() + "\n"


def draw(measured: Measured, figures: dict[str, Any], path: Path) -> None:
    """The metric against k, trained tasks beside held-out ones, with intervals."""
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    for axis, (role, title) in zip(axes, _GROUPS.items(), strict=True):
        for method, row in figures["means"][role].items():
            points = [row[f"k={k}"] for k in measured.shots]
            places = range(len(measured.shots))
            [line] = axis.plot(places, [point["value"] for point in points], marker="o", label=method)
            axis.fill_between(
                places,
                [point["low"] for point in points],
                [point["high"] for point in points],
                alpha=0.12,
                color=line.get_color(),
            )
        axis.set_xticks(range(len(measured.shots)), [str(k) for k in measured.shots])
        axis.set_xlabel("demonstrations k")
        axis.set_title(f"{len(measured.tasks[role])} {title}")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean of the tasks' metrics")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
