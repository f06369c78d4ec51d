"""Rows that are decoded together: they join and leave between any two steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from manyicl_core.inference.answer import GREEDY, Answer
from manyicl_core.inference.guides import LabelGuide
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from manyicl_core.inference.prefix import Prefix
from manyicl_core.inference.slots import Slots
from manyicl_core.method.labels import LabelTree

LONGEST_ROW = 256
"""Tokens of its own that a row has beside the others; with more, they become a prefix for it alone."""


@dataclass(slots=True, eq=False)
class Row:
    """A query behind a prefix, and the answer to it.

    Attributes:
        pending: tokens that the model has not read yet: first the query, then what was written last.
        own: tokens behind the prefix that it has read.
        is_apart: whether the prefix ends with tokens of its own.
        error: why its answer cannot go on.
    """

    adapter: str | None
    prefix: Prefix
    pending: list[int]
    answer: Answer
    own: list[int] = field(default_factory=list)
    is_apart: bool = False
    error: Exception | None = None


class Decoder:
    """Rows over one language model, with any prefixes and adapters."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._slots = Slots(model)
        self.rows: list[Row] = []

    def join(self, row: Row) -> None:
        """Take part from the next step on."""
        self._slots.take()
        self.rows.append(row)

    def leave(self, row: Row) -> None:
        """Take part no more."""
        slot = self.rows.index(row)
        self._slots.drop(slot)
        last = self.rows.pop()
        if last is not row:
            self.rows[slot] = last

    def step(self) -> list[tuple[Row, list[int]]]:
        """One pass of the model: each row's new tokens, at least one; rows whose answer is complete leave.

        A row whose answer cannot go on has none, and an ``error``. A pass that fails, for want of
        memory, leaves all rows as they were.
        """
        for slot, row in enumerate(self.rows):
            if row.own and len(row.own) + len(row.pending) > LONGEST_ROW:
                self._set_apart(slot, row)
        rows = list(self.rows)
        counts = [len(row.pending) for row in rows]
        lengths = self._slots.lengths
        try:
            states = self._slots.run(
                [row.adapter for row in rows], [row.pending for row in rows], [row.prefix for row in rows]
            )
            last = torch.tensor(counts).cumsum(0) - 1
            logits = self._model.logits(states[last.to(states.device)])
            best = logits.argmax(dim=-1).tolist()
        except BaseException:
            self._slots.lengths = lengths
            raise
        written: list[tuple[Row, list[int]]] = []
        for index, row in enumerate(rows):
            answer = row.answer
            try:
                new = answer.push_best(best[index]) if answer.takes_the_best else answer.push(logits[index].cpu())
            except Exception as error:  # its grammar's, for example; the others go on
                row.error, new = error, []
            row.own += row.pending
            row.pending = new
            written.append((row, new))
        for row in rows:
            if row.answer.finish is not None:
                self.leave(row)
        return written

    def _set_apart(self, slot: int, row: Row) -> None:
        """Make of what a row has read a prefix of its own, behind the shared one: others are not padded to it."""
        own = self._slots.contents(slot)
        tokens = (*row.prefix.tokens, *row.own)
        if row.is_apart:
            before = row.prefix.before
            own = tuple(
                (torch.cat([had[0], keys], dim=2), torch.cat([had[1], values], dim=2))
                for had, (keys, values) in zip(row.prefix.layers, own, strict=True)
            )
        else:
            before = row.prefix if row.prefix.tokens else None
            own = tuple((keys.clone(), values.clone()) for keys, values in own)
        row.prefix = Prefix(tokens, own, before)
        row.is_apart = True
        row.own = []
        self._slots.clear(slot)


def answers(
    model: TunedModel,
    prefix: Prefix,
    queries: Sequence[Sequence[int]],
    max_tokens: int,
    stop: frozenset[int],
    labels: LabelTree | None = None,
) -> list[list[int]]:
    """Greedy answers' token ids without their stop token, in the order of ``queries``."""
    decoder = Decoder(model.language_model)
    rows = [
        Row(
            model.adapter, prefix, list(query), Answer(GREEDY, max_tokens, stop, LabelGuide(labels) if labels else None)
        )
        for query in queries
    ]
    for row in rows:
        decoder.join(row)
    while decoder.rows:
        for row, _ in decoder.step():
            if row.error is not None:
                raise row.error
    return [[token for token in row.answer.written if token not in stop] for row in rows]
