"""Which demonstrations, in which order: pure functions of a seed and counters.

Randomness comes from ``numpy.random.default_rng([seed, purpose, counters…])``: no generator is
ever carried from one call to the next, so any draw can be made again on its own.
"""

import zlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

_TRAINING, _MIXING, _CONTEXT = range(3)


def _generator(*counters: int) -> np.random.Generator:
    return np.random.default_rng(counters)


def _task_key(name: str) -> int:
    return zlib.crc32(name.encode())


def training_order(
    seed: int, epoch: int, task: str, round_: int, outputs: Sequence[str], balanced: bool = False
) -> list[int]:
    """The order in which one task's examples are drawn in a round of an epoch.

    Args:
        outputs: the examples' outputs, in file order.
        balanced: go round the distinct outputs, and show the examples of a rare output again and
            again until those of the most frequent one are through. Otherwise every example
            occurs once, without replacement.
    """
    rng = _generator(seed, _TRAINING, epoch, _task_key(task), round_)
    if not balanced:
        return [int(i) for i in rng.permutation(len(outputs))]
    queues = _by_output(outputs, [int(i) for i in rng.permutation(len(outputs))])
    order: list[int] = []
    for turn in range(max((len(queue) for queue in queues.values()), default=0)):
        labels = sorted(queues)
        order += [queues[labels[int(i)]][turn % len(queues[labels[int(i)]])] for i in rng.permutation(len(labels))]
    return order


def mixing_order(seed: int, epoch: int, size: int) -> list[int]:
    """The order in which an epoch's ``size`` sequences are visited."""
    return [int(i) for i in _generator(seed, _MIXING, epoch).permutation(size)]


def context_order(seed: int, draw: int, task: str, outputs: Sequence[str], balanced: bool) -> list[int]:
    """The order of demonstrations in draw number ``draw`` of a context; k shots take the first k.

    Args:
        outputs: the examples' outputs, in file order.
        balanced: go round the distinct outputs, so that every prefix of the order holds each
            label about equally often. Meant for closed label sets.
    """
    rng = _generator(seed, _CONTEXT, draw, _task_key(task))
    shuffled = [int(i) for i in rng.permutation(len(outputs))]
    if not balanced:
        return shuffled
    queues = _by_output(outputs, shuffled)
    order: list[int] = []
    rounds = max((len(queue) for queue in queues.values()), default=0)
    for turn in range(rounds):
        labels = [label for label in sorted(queues) if turn < len(queues[label])]
        order += [queues[labels[int(i)]][turn] for i in rng.permutation(len(labels))]
    return order


def _by_output(outputs: Sequence[str], order: list[int]) -> dict[str, list[int]]:
    queues: dict[str, list[int]] = defaultdict(list)
    for index in order:
        queues[outputs[index]].append(index)
    return queues
