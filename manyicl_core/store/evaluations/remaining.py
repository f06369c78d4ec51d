"""How long work still takes, from the pace of what was done. Pure functions on numbers."""

import statistics
from collections.abc import Iterable, Sequence

_EVALUATED_OVER_TRAINED = 1 / 3
"""Time of an evaluated example over that of a trained one: no backward pass, but answers word by word.

By the runs of docs/results.md: .35 in the demo, .26 over the real tasks.
"""

LATELY = 20
"""Steps whose pace counts: a slow one among them changes nothing, a machine that has become slow soon does."""


def training_seconds(steps_left: float, lately: Sequence[float]) -> float:
    """What steps that are left take at the median pace of the last ones, seconds each."""
    return steps_left * statistics.median(lately)


def expected_evaluation_seconds(examples: int, step_seconds: Sequence[float], step_answers: int) -> float:
    """What an evaluation will take that has measured nothing yet, by the pace of training steps.

    Args:
        examples: how many go through a model.
        step_seconds: of the last steps.
        step_answers: the examples that the last step trained.
    """
    return examples * _EVALUATED_OVER_TRAINED * statistics.median(step_seconds) / step_answers


def evaluated_examples(shots: Iterable[int], queries: int, draws: int) -> int:
    """How many examples go through a model at one task, over every k of ``shots``."""
    return sum(_examples(k, queries, draws) for k in set(shots))


def evaluation_seconds(done: Sequence[tuple[int, float]], left: Sequence[int], queries: int, draws: int) -> float:
    """What results that are left take, by those that are there.

    Args:
        done: the k of each, and its seconds.
        left: the k of each.
        queries: how many queries a result is over; draws: how many contexts, where k is not 0.
    """
    worked = sum(_examples(k, queries, draws) for k, _ in done)
    return sum(_examples(k, queries, draws) for k in left) * sum(seconds for _, seconds in done) / worked


def _examples(k: int, queries: int, draws: int) -> int:
    """The examples that go through the model: a context once, then each query and, word by word, its answer."""
    return (draws if k else 1) * (k + 2 * queries)
