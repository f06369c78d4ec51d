"""How sure a figure is: bootstrap intervals and paired tests over items and draws. No torch.

A task's items (queries) are crossed with draws (contexts of demonstrations): every item is asked
with every draw. So items and draws are resampled independently of each other, with replacement,
and a pair counts as often as its item times its draw: the pigeonhole bootstrap (Owen 2007,
*Annals of Applied Statistics* 1(2), 386-411). Its variance is, if anything, too large in the
noise of single pairs; the part of the draws is estimated from few of them and comes out small
by a factor (draws - 1) / draws. Intervals are percentiles. Several tasks are resampled each on
its own, and their figures averaged with equal weight.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manyicl_core.method.equality import canonical

FloatArray = npt.NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95
_ZERO_OR_ONE = ("accuracy", "exact_match", "numeric")


@dataclass(frozen=True, slots=True)
class Items:
    """One model's answers to one task's items at one number of shots.

    Attributes:
        metric: one of ``manyicl_core.method.tasks.Metric``.
        lines: each item's line in its file; what pairs two models' items.
        scores: float64 ``[items, draws]``.
        references: the gold answers, one an item.
        predictions: ``[items][draws]``.
    """

    metric: str
    lines: tuple[int, ...]
    scores: FloatArray
    references: tuple[str, ...]
    predictions: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second model beside the first.

    Attributes:
        difference: second minus first, with its 95 % paired-bootstrap interval.
        p_value: two-sided, of the paired bootstrap.
        mcnemar_p_value: two-sided, of McNemar's exact test; None unless scores are 0 or 1.
    """

    difference: Interval
    p_value: float
    mcnemar_p_value: float | None


def read_items(metric: str, lines: Iterable[str]) -> Items:
    """Read the JSONL that the evaluation process wrote for one result (``EvaluationResult.items_file``)."""
    rows = [json.loads(line) for line in lines]
    draws = 1 + max(row["draw"] for row in rows)
    items = len(rows) // draws
    assert [row["draw"] for row in rows] == [draw for draw in range(draws) for _ in range(items)]
    return Items(
        metric=metric,
        lines=tuple(row["line"] for row in rows[:items]),
        scores=np.array([row["score"] for row in rows], dtype=np.float64).reshape(draws, items).T,
        references=tuple(row["reference"] for row in rows[:items]),
        predictions=tuple(tuple(row["prediction"] for row in rows[item::items]) for item in range(items)),
    )


def interval(tasks: Sequence[Items], seed: int = 0) -> Interval:
    """The metric, averaged over ``tasks``, with its interval; the same seed gives the same one."""
    generator = np.random.default_rng(seed)
    resampled = np.zeros(RESAMPLES)
    for items in tasks:
        resampled += _figures(items)(*_resampled_counts(items, generator)) / len(tasks)
    return _interval(float(np.mean([value(items) for items in tasks])), resampled)


def compare(tasks: Sequence[tuple[Items, Items]], seed: int = 0) -> Comparison:
    """Two models over the same items and draws of ``tasks``, averaged over the tasks.

    The p-value is the smallest level at which the interval of the difference leaves out zero.
    McNemar's test counts, over all tasks, the items that only one model gets right; with several
    draws an item counts for the model that gets it right in more of them.
    """
    generator = np.random.default_rng(seed)
    differences = np.zeros(RESAMPLES)
    for first, second in tasks:
        assert (first.metric, first.lines, first.scores.shape) == (second.metric, second.lines, second.scores.shape)
        counts = _resampled_counts(first, generator)
        differences += (_figures(second)(*counts) - _figures(first)(*counts)) / len(tasks)
    found = float(np.mean([value(second) - value(first) for first, second in tasks]))
    # One more than counted: the observed data are one of the possible resamples.
    tail = 1 + min(np.sum(differences <= _TIE), np.sum(differences >= -_TIE))
    return Comparison(
        difference=_interval(found, differences),
        p_value=min(1.0, float(2 * tail / (RESAMPLES + 1))),
        mcnemar_p_value=_mcnemar(tasks) if all(first.metric in _ZERO_OR_ONE for first, _ in tasks) else None,
    )


def value(items: Items) -> float:
    """The metric over all items and draws."""
    counts, draws = items.scores.shape
    return float(_figures(items)(np.ones((1, counts)), np.ones((1, draws)))[0])


_TIE = 1e-12
"""What rounding makes of a difference of zero."""

_Figures = Callable[[FloatArray, FloatArray], FloatArray]


def _figures(items: Items) -> _Figures:
    """A function from counts ``[resamples, items]`` and ``[resamples, draws]`` to the metric ``[resamples]``."""
    if items.metric == "macro_f1":
        return _macro_f1(items)

    def mean(item_counts: FloatArray, draw_counts: FloatArray) -> FloatArray:
        total: FloatArray = ((item_counts @ items.scores) * draw_counts).sum(axis=1)
        return total / items.scores.size

    return mean


def _macro_f1(items: Items) -> _Figures:
    """As scikit-learn's: labels that are neither predicted nor gold in a resample do not count."""
    gold_texts = np.array([canonical(text.strip()) for text in items.references])
    predicted_texts = np.array([[canonical(text.strip()) for text in row] for row in items.predictions])
    labels = np.unique(np.concatenate([gold_texts, predicted_texts.ravel()]))
    gold = (gold_texts[:, None] == labels).astype(np.float64)
    predicted = (predicted_texts[:, :, None] == labels).astype(np.float64)

    def figure(item_counts: FloatArray, draw_counts: FloatArray) -> FloatArray:
        both = np.zeros((len(item_counts), len(labels)))
        either = (item_counts @ gold) * draw_counts.sum(axis=1, keepdims=True)
        for draw in range(predicted.shape[1]):
            times = draw_counts[:, draw, None]
            both += (item_counts @ (predicted[:, draw] * gold)) * times
            either += (item_counts @ predicted[:, draw]) * times
        scores = np.divide(2 * both, either, out=np.zeros_like(both), where=either > 0)
        mean: FloatArray = scores.sum(axis=1) / (either > 0).sum(axis=1)
        return mean

    return figure


def _resampled_counts(items: Items, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """How often each item and each draw occurs in each resample: ``[resamples, items]``, ``[resamples, draws]``."""
    item_counts, draw_counts = (_counts(size, generator) for size in items.scores.shape)
    return item_counts, draw_counts


def _counts(size: int, generator: np.random.Generator) -> FloatArray:
    drawn = generator.integers(size, size=(RESAMPLES, size)) + size * np.arange(RESAMPLES)[:, None]
    return np.bincount(drawn.ravel(), minlength=RESAMPLES * size).reshape(RESAMPLES, size).astype(np.float64)


def _interval(found: float, resampled: FloatArray) -> Interval:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(found, float(low), float(high))


def _mcnemar(tasks: Sequence[tuple[Items, Items]]) -> float:
    from scipy.stats import binomtest

    gains = np.concatenate([(second.scores - first.scores).sum(axis=1) for first, second in tasks])
    better, worse = int(np.sum(gains > 0)), int(np.sum(gains < 0))
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
