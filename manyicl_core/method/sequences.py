"""The data stream: ``SequenceStream.sequence(epoch, index)`` is a pure function.

A sequence is an instruction and whole demonstrations of one task, as many as fit the token
budget. There is no padding and no cut answer. The loader's state is one integer, and resuming
needs no replay.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from manyicl_core.method.encoding import EncodedExample, Encoder
from manyicl_core.method.sampling import mixing_order, training_order
from manyicl_core.method.tasks import Task

IntArray = npt.NDArray[np.int64]


class StreamSettings(BaseModel):
    """How sequences are made.

    Attributes:
        max_sequence_tokens: the token budget of one sequence.
        max_demonstrations: at most so many demonstrations in a sequence; None: as many as fit.
        demonstrations: ``natural`` draws every example once a round; ``balanced`` shows every
            label of a task with a closed label set equally often.
        mixing: a task's share of the sequences: ``uniform``, or ``proportional`` to its size, or
            to its size to the power of 1 / ``temperature``; each times its weight.
        temperature: 1 is proportional, and the larger it is, the closer to uniform.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_sequence_tokens: int = Field(default=1024, ge=64, le=131_072)
    max_demonstrations: int | None = Field(default=None, ge=1, le=100_000)
    demonstrations: Literal["natural", "balanced"] = "natural"
    mixing: Literal["uniform", "proportional", "temperature"] = "uniform"
    temperature: float = Field(default=2.0, ge=1, le=1000, allow_inf_nan=False)


class DoesNotFit(ValueError):
    """An example that is longer than the sequence budget of its task."""

    def __init__(self, task: str, line: int, tokens: int, budget: int) -> None:
        self.task, self.line, self.tokens, self.budget = task, line, tokens, budget
        super().__init__(
            f"line {line}: the example of task {task!r} takes {tokens} tokens with its instruction, "
            f"but max_sequence_tokens is {budget}; shorten it or raise max_sequence_tokens"
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that may be a target: half-open positions, stop token included.

    ``shot`` is the number of demonstrations before it in its document.
    """

    start: int
    end: int
    shot: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """One training sample.

    Attributes:
        task: the task's name.
        examples: indices of its demonstrations, in the task's file order of examples.
        tokens: int64 array ``[length]``.
        answers: the answers that may be targets, in order.
        documents: where each document starts: ``(0,)``, or, when every demonstration stands
            alone, one start a demonstration. No document sees another.
    """

    task: str
    examples: tuple[int, ...]
    tokens: IntArray
    answers: tuple[Answer, ...]
    documents: tuple[int, ...]


class EncodedTask:
    """A training task whose examples are tokenised once; sequences are index arithmetic on it."""

    def __init__(self, task: Task, encoder: Encoder) -> None:
        self.name = task.definition.name
        self.weight = task.definition.weight
        self.closed = task.definition.labels is not None
        self.lines = [example.line for example in task.demonstrations]
        self.outputs = [example.output for example in task.demonstrations]
        self.head = encoder.instruction(task.definition.instruction)
        self.separator = encoder.separator()
        self.examples: list[EncodedExample] = [encoder.example(example) for example in task.demonstrations]

    def check_fits(self, budget: int) -> list[DoesNotFit]:
        """Every example that cannot stand in a sequence of ``budget`` tokens, by line."""
        return [
            DoesNotFit(self.name, line, len(self.head) + len(example), budget)
            for line, example in zip(self.lines, self.examples, strict=True)
            if len(self.head) + len(example) > budget
        ]

    def layout(
        self, seed: int, epoch: int, round_: int, settings: StreamSettings, alone: bool = False
    ) -> list[tuple[int, ...]]:
        """One round: the task's examples in a fresh order, cut into whole-demonstration sequences.

        Every example stands in a round at least once. Only the last sequence, which the end of
        the order would leave short, is topped up from the order's beginning; no example stands
        twice in one sequence.

        Args:
            alone: every demonstration is a document of its own, with its own instruction.
        """
        balanced = self.closed and settings.demonstrations == "balanced"
        order = training_order(seed, epoch, self.name, round_, self.outputs, balanced)
        most = settings.max_demonstrations or len(order)
        sequences: list[tuple[int, ...]] = []
        start = 0
        while start < len(order):
            chosen: dict[int, None] = {}
            used = 0
            offset = 0
            while offset < len(order) and len(chosen) < most:
                index = order[(start + offset) % len(order)]
                if index not in chosen:
                    used += self._cost(index, first=alone or not chosen)
                    if used > settings.max_sequence_tokens:
                        break
                    chosen[index] = None
                offset += 1
            assert chosen, "check_fits was not called: an example exceeds the budget"
            sequences.append(tuple(chosen))
            start += offset
        return sequences

    def _cost(self, index: int, first: bool) -> int:
        return len(self.head if first else self.separator) + len(self.examples[index])

    def assemble(self, indices: tuple[int, ...], alone: bool = False) -> Sequence:
        """Join the demonstrations' ids and note where each answer lies."""
        ids: list[int] = []
        answers: list[Answer] = []
        documents: list[int] = []
        for position, index in enumerate(indices):
            shot = 0 if alone else position
            if shot == 0:
                documents.append(len(ids))
            ids += self.separator if shot else self.head
            example = self.examples[index]
            answers += [Answer(len(ids) + start, len(ids) + end, shot) for start, end in example.targets]
            ids += [*example.prompt, *example.answer]
        return Sequence(self.name, indices, np.asarray(ids, dtype=np.int64), tuple(answers), tuple(documents))


class SequenceStream:
    """The training sequences of a job, epoch after epoch.

    An epoch has as many sequences as one round of every task takes. Each task gets its share of
    them; a task with a share larger than its size goes through several rounds of its examples in
    an epoch, each in a new order, and one with a smaller share is seen in part.

    Args:
        tasks: the tasks to train on, every example checked to fit.
        seed: the job's seed.
        settings: how sequences are made.
        alone: every demonstration is a document of its own (objective ``zero_shot``).

    Attributes:
        layout: the sequences of an epoch: each one's place in ``tasks``, and its examples.
    """

    def __init__(self, tasks: list[EncodedTask], seed: int, settings: StreamSettings, alone: bool = False) -> None:
        self.tasks = tasks
        self.seed = seed
        self.settings = settings
        self.alone = alone
        sizes = [len(task.layout(seed, 0, 0, settings, alone)) for task in tasks]
        exponent = {"uniform": 0.0, "proportional": 1.0, "temperature": 1 / settings.temperature}[settings.mixing]
        parts = [task.weight * size**exponent for task, size in zip(tasks, sizes, strict=True)]
        self._shares = [max(1, round(sum(sizes) * part / sum(parts))) for part in parts]
        self.epoch_length = sum(self._shares)
        self.layout = lru_cache(maxsize=2)(self._lay_out)

    def sequence(self, epoch: int, index: int) -> Sequence:
        """Sequence ``index`` of ``epoch``: the same for the same seed, in whatever order asked."""
        task, examples = self.layout(epoch)[index]
        return self.tasks[task].assemble(examples, self.alone)

    def nth(self, number: int) -> Sequence:
        """Sequence ``number`` of the stream, counted over all epochs from 0."""
        return self.sequence(*divmod(number, self.epoch_length))

    def _lay_out(self, epoch: int) -> list[tuple[int, tuple[int, ...]]]:
        """The sequences of an epoch: each one's place in ``tasks``, and the examples that it shows."""
        slots: list[tuple[int, tuple[int, ...]]] = []
        for position, (task, share) in enumerate(zip(self.tasks, self._shares, strict=True)):
            drawn: list[tuple[int, ...]] = []
            round_ = 0
            while len(drawn) < share:
                drawn += task.layout(self.seed, epoch, round_, self.settings, self.alone)
                round_ += 1
            slots += [(position, examples) for examples in drawn[:share]]
        return [slots[i] for i in mixing_order(self.seed, epoch, len(slots))]
