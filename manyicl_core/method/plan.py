"""What a job will do, known before it starts: sequences, steps, tokens, answers.

Counted from the layout of the stream alone, without joining any tokens: about 15 microseconds a
sequence.
"""

from dataclasses import dataclass, fields
from itertools import chain

import numpy as np

from manyicl_core.method.encoding import EncodedExample
from manyicl_core.method.objectives import Objective
from manyicl_core.method.sequences import EncodedTask, IntArray, SequenceStream


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Totals over all sequences of a job; ``answers`` and ``target_tokens`` count what is learnt."""

    sequences: int
    steps: int
    tokens: int
    target_tokens: int
    answers: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What each of some sequences holds: int64 arrays ``[sequences]``, in the stream's order.

    Attributes:
        task: the place of its task in the stream's ``tasks``.
        demonstrations: how many it shows.
        documents: how many documents it is made of, 1 or the number of demonstrations.
        tokens: its length.
        longest: the length of its longest document.
        target_tokens: tokens of its supervised answers.
        answers: its supervised answers.
    """

    task: IntArray
    demonstrations: IntArray
    documents: IntArray
    tokens: IntArray
    longest: IntArray
    target_tokens: IntArray
    answers: IntArray

    def __len__(self) -> int:
        return len(self.task)

    def first(self, number: int) -> "Counts":
        """Those of the first ``number`` sequences."""
        return Counts(*(getattr(self, field.name)[:number] for field in fields(self)))


def plan_training(
    stream: SequenceStream,
    objective: Objective,
    batch_size: int,
    n_epochs: int | None,
    token_budget: int | None,
) -> TrainingPlan:
    """Count a job through.

    Exactly one of ``n_epochs`` and ``token_budget`` is given. Whole optimizer steps of
    ``batch_size`` sequences are made until the budget is met (the last step of an epochs' run may
    be smaller).
    """
    counts = count_sequences(stream, objective, batch_size, n_epochs, token_budget)
    return TrainingPlan(
        sequences=len(counts),
        steps=-(-len(counts) // batch_size),
        tokens=int(counts.tokens.sum()),
        target_tokens=int(counts.target_tokens.sum()),
        answers=int(counts.answers.sum()),
    )


def count_sequences(
    stream: SequenceStream,
    objective: Objective,
    batch_size: int,
    n_epochs: int | None,
    token_budget: int | None,
    most: int | None = None,
) -> Counts:
    """Count every sequence of a job; see ``plan_training``.

    Args:
        most: stop after so many sequences, at the end of an epoch; None: count all.
    """
    assert (n_epochs is None) != (token_budget is None)
    counter = _Counter(stream, objective)
    parts: list[Counts] = []
    sequences = tokens = 0
    wanted = n_epochs * stream.epoch_length if n_epochs is not None else None
    while wanted is None or sequences < wanted:
        if most is not None and sequences >= most:
            break
        part = counter.epoch(len(parts))
        if wanted is None and tokens + part.tokens.sum() >= (token_budget or 0):
            needed = sequences + 1 + int(np.searchsorted(part.tokens.cumsum(), (token_budget or 0) - tokens))
            wanted = -(-needed // batch_size) * batch_size
        parts.append(part)
        sequences += len(part)
        tokens += int(part.tokens.sum())
    joined = Counts(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Counts)))
    return joined.first(sequences if wanted is None else wanted)


def few_shot_answers(stream: SequenceStream, tokens: int) -> float:
    """How many answers ``few_shot`` learns from in ``tokens`` tokens of the same data: one a sequence."""
    joined = SequenceStream(stream.tasks, stream.seed, stream.settings) if stream.alone else stream
    first = _Counter(joined, "few_shot").epoch(0)
    return tokens * float(first.answers.sum() / first.tokens.sum())


class _Counter:
    """Counts epochs of one stream under one objective; the examples' sizes are looked up once."""

    def __init__(self, stream: SequenceStream, objective: Objective) -> None:
        self._stream = stream
        self._objective = objective
        tasks = stream.tasks
        self._first = np.cumsum([0, *(len(task.examples) for task in tasks)])
        self._heads = _integers([len(task.head) for task in tasks])
        self._separators = _integers([len(task.separator) for task in tasks])
        self._lengths = _integers([len(example) for example in _examples(tasks)])
        self._answers = _integers([len(example.targets) for example in _examples(tasks)])
        self._target_tokens = _integers([sum(end - start for start, end in e.targets) for e in _examples(tasks)])

    def epoch(self, epoch: int) -> Counts:
        """The counts of one epoch's sequences."""
        slots = self._stream.layout(epoch)
        task = _integers([position for position, _ in slots])
        demonstrations = _integers([len(examples) for _, examples in slots])
        total = int(demonstrations.sum())
        example = np.fromiter(chain.from_iterable(examples for _, examples in slots), np.int64, total)
        example += np.repeat(self._first[task], demonstrations)
        starts = np.cumsum(demonstrations) - demonstrations

        alone = self._stream.alone
        documents = demonstrations if alone else np.ones_like(demonstrations)
        tokens = np.add.reduceat(self._lengths[example], starts)
        tokens += self._heads[task] * documents + self._separators[task] * (demonstrations - documents)
        if self._objective == "few_shot":
            last = example[starts + demonstrations - 1]
            target_tokens, answers = self._target_tokens[last], self._answers[last]
        else:
            target_tokens = np.add.reduceat(self._target_tokens[example], starts)
            answers = np.add.reduceat(self._answers[example], starts)
        return Counts(
            task=task,
            demonstrations=demonstrations,
            documents=documents,
            tokens=tokens,
            longest=self._heads[task] + np.maximum.reduceat(self._lengths[example], starts) if alone else tokens,
            target_tokens=target_tokens,
            answers=answers,
        )


def _examples(tasks: list[EncodedTask]) -> chain[EncodedExample]:
    return chain.from_iterable(task.examples for task in tasks)


def _integers(values: list[int]) -> IntArray:
    return np.asarray(values, dtype=np.int64)
