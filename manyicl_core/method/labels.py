"""Closed label sets as token trees: which tokens may come next in an answer."""

from collections.abc import Iterable, Sequence

MAX_LABEL_TOKENS = 256
"""Of an encoded label, the stop token included: what there is room for behind a context."""


class LabelTree:
    """The answers that a closed-label task allows, as a tree over token ids.

    Args:
        answers: encoded labels, each ending with the stop id.
    """

    def __init__(self, answers: Iterable[Sequence[int]]) -> None:
        self._children: dict[tuple[int, ...], list[int]] = {}
        for answer in answers:
            for length, token in enumerate(answer):
                children = self._children.setdefault(tuple(answer[:length]), [])
                if token not in children:
                    children.append(token)

    def allowed(self, written: Sequence[int]) -> list[int]:
        """Token ids that may follow what is ``written`` so far; empty after a whole label."""
        return self._children.get(tuple(written), [])

    def forced(self, written: Sequence[int]) -> list[int]:
        """The run of tokens that follows ``written`` without a choice: it needs no model call."""
        path = list(written)
        while len(options := self.allowed(path)) == 1:
            path.append(options[0])
        return path[len(written) :]
