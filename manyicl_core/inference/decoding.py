"""Rows that are decoded together: they join and leave between any two steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch

from manyicl_core.inference.answer import GREEDY, Answer
from manyicl_core.inference.drafts import LONGEST_DRAFT, History, least_likely_worth
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
        history: prompt and answer so far.
        is_apart: whether the prefix ends with tokens of its own.
        error: why its answer cannot go on.
    """

    adapter: str | None
    prefix: Prefix
    pending: list[int]
    answer: Answer
    own: list[int] = field(default_factory=list)
    history: History = field(init=False)
    is_apart: bool = False
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.history = History([*self.prefix.tokens, *self.pending], self.answer.max_tokens)

    def draft(self, least_likely: float) -> list[int]:
        """Tokens that may come next, for the model to read before they are sure."""
        in_answer = self.answer.max_tokens - len(self.answer.written) - 1
        in_row = LONGEST_ROW - len(self.own) - len(self.pending)
        return self.history.draft(min(LONGEST_DRAFT, in_answer, in_row), least_likely)

    def go_on(self, draft: list[int], logits: torch.Tensor, best: list[int]) -> list[int]:
        """Choose the next token, and one more for every drafted token that is the one chosen.

        Args:
            logits: float32 ``[1 + drafted, vocabulary]``, first without, then after each drafted token.
            best: the most likely token of each.
        """
        new: list[int] = []
        while self.answer.finish is None and new == draft[: len(new)]:
            if self.answer.takes_the_best:
                new += self.answer.push_best(best[len(new)])
            else:
                new += self.answer.push(logits[len(new)].cpu())
        self.history.add(new)
        return new


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
        least_likely = least_likely_worth(len(rows), self._model.device.type)
        drafts = [row.draft(least_likely) for row in rows]
        lengths = self._slots.lengths
        try:
            logits = self._logits(rows, drafts)
            best = logits.argmax(dim=-1).tolist()
        except BaseException:
            self._slots.lengths = lengths
            raise
        written: list[tuple[Row, list[int]]] = []
        end = 0
        for slot, (row, draft) in enumerate(zip(rows, drafts, strict=True)):
            start, end = end, end + 1 + len(draft)
            try:
                new = row.go_on(draft, logits[start:end], best[start:end])
            except Exception as error:  # its grammar's, for example; the others go on
                row.error, new = error, []
            right = _length_of_agreement(draft, new)
            self._slots.forget(slot, len(draft) - right)
            row.own += [*row.pending, *draft[:right]]
            row.pending = new[right:]
            written.append((row, new))
        for row in rows:
            if row.answer.finish is not None:
                self.leave(row)
        return written

    def _logits(self, rows: Sequence[Row], drafts: Sequence[list[int]]) -> torch.Tensor:
        """Run all that is pending or drafted; the logits from each row's last pending token on, end to end."""
        new = [[*row.pending, *draft] for row, draft in zip(rows, drafts, strict=True)]
        states = self._slots.run([row.adapter for row in rows], new, [row.prefix for row in rows])
        ends = accumulate(map(len, new))
        wanted = [place for end, draft in zip(ends, drafts, strict=True) for place in range(end - len(draft) - 1, end)]
        return self._model.logits(states[torch.tensor(wanted, device=states.device)])

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
        self._slots.forget(slot, self._slots.lengths[slot])


def _length_of_agreement(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (first, second) in pairs if first != second), min(len(one), len(other)))


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
