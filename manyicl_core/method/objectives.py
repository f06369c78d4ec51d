"""Which answers of a sequence are targets, and how much each counts (design, section 3)."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from manyicl_core.method.sequences import Answer, IntArray, Sequence

Objective = Literal["many_icl", "few_shot", "zero_shot"]
Normalization = Literal["token", "answer"]


def stands_alone(objective: Objective) -> bool:
    """Whether every demonstration is a document of its own: ``zero_shot`` shows no other."""
    return objective == "zero_shot"


def supervised_answers(objective: Objective, sequence: Sequence) -> tuple[Answer, ...]:
    """The answers that the loss covers.

    All of them, 1 to n, for ``many_icl`` and, each in a document of its own, for ``zero_shot``;
    for ``few_shot`` those of demonstration n. Empty when the file gives these no weight.
    """
    if objective == "few_shot":
        last = len(sequence.examples) - 1
        return tuple(answer for answer in sequence.answers if answer.shot == last)
    return sequence.answers


def target_positions(answers: tuple[Answer, ...]) -> IntArray:
    """Positions of all target tokens: int64 array ``[targets]``, ascending.

    The token at position t is predicted from the hidden state at t - 1, so t is never 0.
    """
    positions = np.concatenate(
        [np.arange(answer.start, answer.end, dtype=np.int64) for answer in answers] or [np.empty(0, dtype=np.int64)]
    )
    assert not len(positions) or positions[0] > 0, "the first token of a sequence cannot be a target"
    return positions


def target_weights(answers: tuple[Answer, ...], normalization: Normalization) -> npt.NDArray[np.float32]:
    """The weight of each target token: float32 array ``[targets]``.

    The loss of an optimizer step is the weighted sum over its target tokens, divided by the sum
    of their weights. ``token``: every token counts the same. ``answer``: every answer counts the
    same, however long.
    """
    lengths = np.asarray([answer.end - answer.start for answer in answers], dtype=np.int64)
    each = np.ones(len(lengths)) if normalization == "token" else 1 / lengths
    return np.repeat(each, lengths).astype(np.float32)
