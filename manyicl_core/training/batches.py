"""From sequences to the tensors of one forward pass."""

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
import torch

from manyicl_core.method.objectives import (
    Normalization,
    Objective,
    supervised_answers,
    target_positions,
    target_weights,
)
from manyicl_core.method.sequences import Answer, Sequence

IGNORED = -100
"""The label of a position that predicts no target."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What runs through the model at once.

    Attributes:
        tokens: int64 ``[rows, length]``, a row a document. Padded on the right: under a causal
            mask no real token sees a pad, so there is no attention mask.
        labels: int64 ``[rows, length]``, at each position the *next* token where that is a
            target, else ``IGNORED``.
        weights: float32 ``[targets]``, in row order (``target_weights``).
        answers: the supervised answers, in the same order.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    answers: tuple[Answer, ...]


def micro_batch(sequences: Many[Sequence], objective: Objective, normalization: Normalization) -> MicroBatch:
    """Put the documents of ``sequences`` into rows."""
    rows: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    answers: list[Answer] = []
    for sequence in sequences:
        supervised = supervised_answers(objective, sequence)
        answers += supervised
        next_token = np.full(len(sequence.tokens), IGNORED, dtype=np.int64)
        positions = target_positions(supervised)
        next_token[positions - 1] = sequence.tokens[positions]
        borders = sequence.documents[1:]
        rows += np.split(sequence.tokens, borders)
        labels += np.split(next_token, borders)
    return MicroBatch(
        tokens=_padded(rows, 0),
        labels=_padded(labels, IGNORED),
        weights=torch.from_numpy(target_weights(tuple(answers), normalization)),
        answers=tuple(answers),
    )


def idle_batch() -> MicroBatch:
    """One token and no target: for a pass that a process makes because the others do."""
    return MicroBatch(torch.zeros(1, 1, dtype=torch.int64), torch.full((1, 1), IGNORED), torch.empty(0), ())


def total_weight(sequences: Many[Sequence], objective: Objective, normalization: Normalization) -> float:
    """What the weights of all targets of ``sequences`` sum up to."""
    weights = [target_weights(supervised_answers(objective, sequence), normalization) for sequence in sequences]
    return sum(float(torch.from_numpy(each).sum()) for each in weights)


def _padded(rows: list[np.ndarray], filler: int) -> torch.Tensor:
    padded = np.full((len(rows), max(map(len, rows))), filler, dtype=np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return torch.from_numpy(padded)
