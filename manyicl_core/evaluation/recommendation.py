"""Which number of shots to serve a task with: the fewest that are not worse than the best. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from manyicl_core.contract.evidence import WarningCode
from manyicl_core.evaluation.statistics import Items, compare, value

_USELESS: frozenset[WarningCode] = frozenset(
    {"answers_one_label_only", "answers_one_text_only", "below_most_frequent_answer"}
)


@dataclass(frozen=True, slots=True)
class MeasuredShots:
    """One model at ``k`` shots: the items of one task, or of several that are averaged, in one order."""

    k: int
    tasks: tuple[Items, ...]
    warnings: frozenset[WarningCode]

    @property
    def value(self) -> float:
        """The metric, averaged over the tasks."""
        return float(np.mean([value(items) for items in self.tasks]))


def recommend_k(measured: Sequence[MeasuredShots], seed: int = 0) -> tuple[int | None, str]:
    """The smallest k that is not significantly worse than the best one, or None; and why, in words.

    A k with a warning stands back behind those without. Where all have one, those at which the
    model is not useless are compared; where there are none, no k is recommended.
    """
    clean = [each for each in measured if not each.warnings]
    usable = clean or [each for each in measured if not each.warnings & _USELESS]
    if not usable:
        return None, "at every k measured, the model is below always giving the most frequent answer, or gives one only"
    best = max(usable, key=lambda each: (each.value, -each.k))
    chosen = min((each for each in usable if not _is_worse(each, best, seed)), key=lambda each: each.k)
    if len(usable) == 1:
        reason = "the only k measured" if len(measured) == 1 else "the only k without a warning"
    elif chosen is best:
        reason = f"its {best.value:.3f} is the best"
        if any(each.k < best.k for each in usable):
            reason += ", and every smaller k is significantly worse"
    else:
        reason = f"its {chosen.value:.3f} is not significantly worse than the best, {best.value:.3f} at k={best.k}"
    if not clean:
        codes = ", ".join(sorted(chosen.warnings))
        return chosen.k, f"{reason}; but every k has a warning: {codes}"
    left_out = ", ".join(f"k={each.k} ({', '.join(sorted(each.warnings))})" for each in measured if each.warnings)
    return chosen.k, f"{reason}; left out: {left_out}" if left_out else reason


def _is_worse(one: MeasuredShots, best: MeasuredShots, seed: int) -> bool:
    if one is best:
        return False
    pairs = [_same_draws(first, second) for first, second in zip(best.tasks, one.tasks, strict=True)]
    return compare(pairs, seed).difference.high < 0


def _same_draws(first: Items, second: Items) -> tuple[Items, Items]:
    """Both with equally many draws: without demonstrations, where only one is measured, every draw is the same."""
    draws = max(first.scores.shape[1], second.scores.shape[1])
    return _drawn(first, draws), _drawn(second, draws)


def _drawn(items: Items, draws: int) -> Items:
    if items.scores.shape[1] == draws:
        return items
    assert items.scores.shape[1] == 1, "every k but 0 has the same number of draws"
    return replace(
        items,
        scores=np.repeat(items.scores, draws, axis=1),
        predictions=tuple(row * draws for row in items.predictions),
    )
