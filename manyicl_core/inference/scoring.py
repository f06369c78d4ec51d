"""Log-probabilities of whole labels, in two stages, and of the tokens of a given text.

First every query runs once; its last logits give each label's first token. Then the labels' other
tokens run as short rows of their own on a copy of the query's few keys and values, behind the same
shared prefix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from manyicl_core.inference.answer import TokenLogprob, token_logprob
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix import Prefix
from manyicl_core.inference.slots import Slots

_TAIL_TOKENS = 2048
"""Tokens of the second stage in one pass: each has logits of its own."""
_TAIL_PLACES = 4096
"""Places for keys and values in it: each label has a copy of its query's."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelQuery:
    """A query behind a prefix, and token ids of the labels, each with its stop token."""

    adapter: str | None
    prefix: Prefix
    query: Sequence[int]
    labels: Sequence[Sequence[int]]


class Scoring:
    """The scores of some queries' labels in the making, a pass of the model at a time.

    A pass that fails, for want of memory, can be tried again.

    Attributes:
        scores: for each query, the log-probability of each label as the whole answer.
    """

    def __init__(self, model: LanguageModel, queries: Sequence[LabelQuery]) -> None:
        self._model = model
        self._queries = queries
        self._slots: Slots | None = None
        # Query and label of what the second stage has still to do, labels of similar lengths together.
        self._tails = sorted(
            (
                (index, number)
                for index, query in enumerate(queries)
                for number, label in enumerate(query.labels)
                if len(label) > 1
            ),
            key=self._tail_length,
        )
        self.scores: list[list[float]] = []

    @property
    def is_complete(self) -> bool:
        """Whether no pass is left."""
        return self._slots is not None and not self._tails

    def advance(self) -> None:
        """Run the next pass: first all queries, then some labels."""
        if self._slots is None:
            self._slots = self._run_queries()
            return
        # All are padded to the longest, which is the last one.
        longest = self._tail_length(self._tails[-1])
        places = longest + max(self._slots.lengths)
        pack = max(1, min(_TAIL_TOKENS // longest, _TAIL_PLACES // places))
        self._add_tails(self._slots, self._tails[-pack:])
        del self._tails[-pack:]

    def _tail_length(self, tail: tuple[int, int]) -> int:
        index, number = tail
        return len(self._queries[index].labels[number])

    def _run_queries(self) -> Slots:
        queries = self._queries
        slots = Slots(self._model)
        for _ in queries:
            slots.take()
        states = slots.run(
            [query.adapter for query in queries],
            [query.query for query in queries],
            [query.prefix for query in queries],
        )
        last = torch.tensor([len(query.query) for query in queries]).cumsum(0) - 1
        first = self._model.logits(states[last.to(states.device)]).log_softmax(dim=-1)
        self.scores = [
            first[index, [label[0] for label in query.labels]].tolist() for index, query in enumerate(queries)
        ]
        return slots

    def _add_tails(self, slots: Slots, tails: list[tuple[int, int]]) -> None:
        """Add the log-probabilities of the tokens after the first one."""
        queries = self._queries
        labels = [queries[index].labels[number] for index, number in tails]
        copied = slots.copy([index for index, _ in tails], max(map(len, labels)) - 1)
        states = copied.run(
            [queries[index].adapter for index, _ in tails],
            [label[:-1] for label in labels],
            [queries[index].prefix for index, _ in tails],
        )
        following = torch.tensor([token for label in labels for token in label[1:]], device=states.device)
        logprobs = self._model.logits(states).log_softmax(dim=-1).gather(1, following[:, None])[:, 0]
        sums = [float(part.sum()) for part in logprobs.split([len(label) - 1 for label in labels])]
        for (index, number), value in zip(tails, sums, strict=True):
            self.scores[index][number] += value


def label_scores(model: LanguageModel, queries: Sequence[LabelQuery]) -> list[list[float]]:
    """For each query, the log-probability of each label as the whole answer."""
    scoring = Scoring(model, queries)
    while not scoring.is_complete:
        scoring.advance()
    return scoring.scores


def following_logprobs(
    model: LanguageModel, states: torch.Tensor, following: Sequence[int], top: int
) -> list[TokenLogprob]:
    """Of the tokens that follow in a given text, by the states ``[tokens, hidden]`` before them."""
    logits = model.logits(states).cpu()
    return [token_logprob(row, token, top) for row, token in zip(logits, following, strict=True)]
