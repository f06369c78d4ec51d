"""Which of many examples to show: spread over the inputs, and the choice between ways to choose."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SelectionKind = Literal["balanced", "random", "diverse"]


def spread_order(groups: Sequence[str], similarity: Callable[[int], NDArray[np.floating]]) -> Iterator[int]:
    """Positions of candidates, each the most different from all before it.

    Farthest-first traversal (Gonzalez 1985): the next one is that whose nearest chosen one is
    farthest. The first candidate is the first chosen, and the earlier one wins a tie.

    Args:
        groups: the group of each candidate. The chosen ones go through the groups in the order in
            which the candidates do, so candidates in balanced order give a balanced choice.
        similarity: of the candidate at a position to every candidate.
    """
    names = np.array(groups)
    free = np.ones(len(groups), dtype=bool)
    nearest = np.full(len(groups), -np.inf)
    for group in groups:
        allowed = free & (names == group)
        position = int(np.argmin(np.where(allowed, nearest, np.inf)))
        assert allowed[position]
        free[position] = False
        yield position
        nearest = np.maximum(nearest, similarity(position))


@dataclass(frozen=True, slots=True)
class Scored:
    """A tried context: its length, and its score for each of the same queries, from 0 to 1."""

    tokens: int
    scores: tuple[float, ...]


def cheapest_good(tried: Sequence[Scored]) -> int:
    """The position of the shortest context that is as good as the best one, within the noise.

    As good: the paired difference of the scores is at most one standard error of its mean.
    """
    best = max(tried, key=lambda each: (np.mean(each.scores), -each.tokens))

    def behind(each: Scored) -> bool:
        differences = np.subtract(best.scores, each.scores)
        error = np.std(differences, ddof=1) / np.sqrt(len(differences))
        return bool(np.mean(differences) > error * (1 + 1e-9))  # one query more is exactly one error

    good = [position for position, each in enumerate(tried) if not behind(each)]
    return min(good, key=lambda position: (tried[position].tokens, -float(np.mean(tried[position].scores))))
