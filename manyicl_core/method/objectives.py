"""Which answers of a sequence are targets (design, section 3)."""

from typing import Literal

import numpy as np

from manyicl_core.method.sequences import IntArray, Sequence

Objective = Literal["many_icl"]


def supervised_spans(objective: Objective, sequence: Sequence) -> tuple[tuple[int, int], ...]:
    """The answer spans that the loss covers; for ``many_icl`` all of them, 1 to n."""
    assert objective == "many_icl"
    return sequence.answer_spans


def target_positions(spans: tuple[tuple[int, int], ...]) -> IntArray:
    """Positions of all target tokens: int64 array ``[targets]``, ascending.

    The token at position t is predicted from the hidden state at t - 1, so t is never 0.
    """
    positions = np.concatenate([np.arange(start, end, dtype=np.int64) for start, end in spans])
    assert positions[0] > 0, "the first token of a sequence cannot be a target"
    return positions
