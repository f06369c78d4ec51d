"""What an answer will probably say next, guessed from its own prompt: the model then reads several tokens at once.

Answers behind demonstrations repeat them and the query. Tokens that followed the same last few
tokens before are drafted, and one pass of the model checks all of them (Saxena 2023, *Prompt
Lookup Decoding*; for exactness Leviathan et al. 2023, arXiv 2211.17192). Each token is chosen from
the model's logits as without a draft, by the same dice; a draft only saves passes where it agrees.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LONGEST_DRAFT = 8
"""Tokens that a pass reads at most before they are sure."""

_LONGEST_MATCH = 4
_WORTH = {"cpu": 24, "cuda": 256}
"""A pass of one token costs as much as so many further ones in it."""


class History:
    """A row's tokens so far, to look in for what comes next.

    Args:
        prompt: all of it, the context included.
        room: tokens that may still be added.
    """

    def __init__(self, prompt: Sequence[int], room: int) -> None:
        self._tokens = np.empty(len(prompt) + room, dtype=np.int32)
        self._length = 0
        self.add(prompt)

    def add(self, tokens: Sequence[int]) -> None:
        """The text goes on."""
        end = self._length + len(tokens)
        self._tokens[self._length : end] = tokens
        self._length = end

    def draft(self, most: int, least_likely: float) -> list[int]:
        """Up to ``most`` tokens that may come next, as long as all of them are ``least_likely`` to be right.

        They are those that most often followed where the last tokens stood before.
        """
        tokens = self._tokens[: self._length]
        ends = _ends_of_matches(tokens)
        drafted: list[int] = []
        likely = 1.0
        while len(drafted) < most and len(ends):
            candidates, votes = np.unique(tokens[ends + 1], return_counts=True)
            token, most_votes = candidates[votes.argmax()], int(votes.max())
            likely *= most_votes / (len(ends) + 1)
            if likely < least_likely:
                break
            drafted.append(int(token))
            ends = ends[tokens[ends + 1] == token] + 1
            ends = ends[ends < len(tokens) - 1]
        return drafted


def least_likely_worth(rows: int, device: str) -> float:
    """How likely a token must be for its draft to pay, in a pass that ``rows`` share.

    Read for nothing it costs one token's work; if right, it saves its row a token and its share of a pass.
    """
    return rows / (rows + pass_worth(device))


def pass_worth(device: str) -> int:
    """How many tokens more a pass could read for what it costs to have one at all."""
    return _WORTH[device]


def _ends_of_matches(tokens: NDArray[np.int32]) -> NDArray[np.intp]:
    """Places before the last one where the longest possible run of the last tokens ended before."""
    ends = np.flatnonzero(tokens[:-1] == tokens[-1])
    for back in range(1, min(_LONGEST_MATCH, len(tokens))):
        longer = ends[ends >= back]
        longer = longer[tokens[longer - back] == tokens[-1 - back]]
        if not len(longer):
            break
        ends = longer
    return ends
