"""The data stream: ``SequenceStream.sequence(epoch, index)`` is a pure function.

A sequence is an instruction and whole demonstrations of one task, as many as fit the token
budget. There is no padding and no cut answer; the last token is the stop token of the last
answer, hence a target. The loader's state is one integer, and resuming needs no replay.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from manyicl_core.method.encoding import EncodedExample, Encoder
from manyicl_core.method.sampling import mixing_order, training_order
from manyicl_core.method.tasks import Task

IntArray = npt.NDArray[np.int64]


class DoesNotFit(ValueError):
    """An example that is longer than the sequence budget of its task."""

    def __init__(self, task: str, line: int, tokens: int, budget: int) -> None:
        self.task, self.line, self.tokens, self.budget = task, line, tokens, budget
        super().__init__(
            f"line {line}: the example of task {task!r} takes {tokens} tokens with its instruction, "
            f"but max_sequence_tokens is {budget}; shorten it or raise max_sequence_tokens"
        )


@dataclass(frozen=True, slots=True)
class Sequence:
    """One training sample.

    Attributes:
        task: the task's name.
        examples: indices of its demonstrations, in the task's file order of examples.
        tokens: int64 array ``[length]``.
        answer_spans: half-open ``(start, end)`` positions of each answer, stop token included.
    """

    task: str
    examples: tuple[int, ...]
    tokens: IntArray
    answer_spans: tuple[tuple[int, int], ...]


class EncodedTask:
    """A training task whose examples are tokenised once; sequences are index arithmetic on it."""

    def __init__(self, task: Task, encoder: Encoder) -> None:
        self.name = task.definition.name
        self.weight = task.definition.weight
        self.lines = [example.line for example in task.demonstrations]
        self.head = encoder.instruction(task.definition.instruction)
        self.separator = encoder.separator()
        self.examples: list[EncodedExample] = [
            encoder.example(example.input, example.output) for example in task.demonstrations
        ]

    def check_fits(self, budget: int) -> list[DoesNotFit]:
        """Every example that cannot stand in a sequence of ``budget`` tokens, by line."""
        return [
            DoesNotFit(self.name, line, len(self.head) + len(example), budget)
            for line, example in zip(self.lines, self.examples, strict=True)
            if len(self.head) + len(example) > budget
        ]

    def layout(self, seed: int, epoch: int, round_: int, budget: int) -> list[tuple[int, ...]]:
        """One round: the task's examples in a fresh order, cut into whole-demonstration sequences.

        Every example stands in a round at least once. Only the last sequence, which the end of
        the order would leave short, is topped up from the order's beginning; no example stands
        twice in one sequence.
        """
        order = training_order(seed, epoch, self.name, round_, len(self.examples))
        sequences: list[tuple[int, ...]] = []
        start = 0
        while start < len(order):
            chosen: list[int] = []
            used = len(self.head)
            for offset in range(len(order)):
                index = order[(start + offset) % len(order)]
                cost = len(self.examples[index]) + (len(self.separator) if chosen else 0)
                if used + cost > budget:
                    break
                chosen.append(index)
                used += cost
            assert chosen, "check_fits was not called: an example exceeds the budget"
            sequences.append(tuple(chosen))
            start += len(chosen)
        return sequences

    def assemble(self, indices: tuple[int, ...]) -> Sequence:
        """Join the demonstrations' ids and note where each answer lies."""
        ids = list(self.head)
        spans: list[tuple[int, int]] = []
        for position, index in enumerate(indices):
            if position:
                ids += self.separator
            example = self.examples[index]
            ids += example.prompt
            spans.append((len(ids), len(ids) + len(example.answer)))
            ids += example.answer
        return Sequence(self.name, indices, np.asarray(ids, dtype=np.int64), tuple(spans))


class SequenceStream:
    """The training sequences of a job, epoch after epoch.

    An epoch has as many sequences as one round of every task takes. Mixing is uniform: each task
    gets an equal share of them, times its weight; a small task goes through several rounds of
    its examples in an epoch, each in a new order, and a large one is seen in part.

    Args:
        tasks: the tasks to train on, every example checked to fit.
        seed: the job's seed.
        max_sequence_tokens: the token budget of one sequence.
    """

    def __init__(self, tasks: list[EncodedTask], seed: int, max_sequence_tokens: int) -> None:
        self.tasks = tasks
        self.seed = seed
        self.max_sequence_tokens = max_sequence_tokens
        one_round = sum(len(task.layout(seed, 0, 0, max_sequence_tokens)) for task in tasks)
        weights = sum(task.weight for task in tasks)
        self._shares = [max(1, round(one_round * task.weight / weights)) for task in tasks]
        self.epoch_length = sum(self._shares)
        self._laid_out = lru_cache(maxsize=2)(self._lay_out)

    def sequence(self, epoch: int, index: int) -> Sequence:
        """Sequence ``index`` of ``epoch``: the same for the same seed, in whatever order asked."""
        task, examples = self._laid_out(epoch)[index]
        return self.tasks[task].assemble(examples)

    def nth(self, number: int) -> Sequence:
        """Sequence ``number`` of the stream, counted over all epochs from 0."""
        return self.sequence(*divmod(number, self.epoch_length))

    def _lay_out(self, epoch: int) -> list[tuple[int, tuple[int, ...]]]:
        slots: list[tuple[int, tuple[int, ...]]] = []
        for position, (task, share) in enumerate(zip(self.tasks, self._shares, strict=True)):
            drawn: list[tuple[int, ...]] = []
            round_ = 0
            while len(drawn) < share:
                drawn += task.layout(self.seed, epoch, round_, self.max_sequence_tokens)
                round_ += 1
            slots += [(position, examples) for examples in drawn[:share]]
        return [slots[i] for i in mixing_order(self.seed, epoch, len(slots))]
