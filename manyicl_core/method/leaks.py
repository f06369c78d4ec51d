"""What is tested must not be trained on: exact leaks are refused, near leaks are shown.

Tested are the queries of every task and, because a held-out task stands for the unseen, its
demonstrations too; trained are the demonstrations of all other tasks. An exact leak is the same
input, apart from case, white space and canonically equal code points, behind the same earlier
exchanges. A near leak is a run of ten words that two inputs share, numbers masked: a text that was
only edited, or a problem with other numbers.
"""

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from manyicl_core.method.equality import canonical
from manyicl_core.method.tasks import Example, Task

RUN = 10
_SHOWN_CHARACTERS = 200
# A digit always ends a word, so that "item7" and "item8" are the same words.
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d]+")
# An odd number with scattered bits: the base of a polynomial hash modulo 2**64.
_BASE = np.uint64(0x9E3779B97F4A7C15)

Part = Literal["training", "validation"]


@dataclass(frozen=True, slots=True)
class _Placed:
    """An example and where it stands."""

    task: str
    part: Part
    example: Example


@dataclass(frozen=True, slots=True)
class NearLeak:
    """A tested example that shares a run of ten words with a trained one.

    Attributes:
        task: the tested example's task.
        part: the file in which it stands; ``training`` for a demonstration of a held-out task.
        line: its line there.
        other_task: the trained example's task.
        other_line: its line in the training file.
        words: the first such run, in lower case, a number as ``#``, at most 200 characters.
    """

    task: str
    part: Part
    line: int
    other_task: str
    other_line: int
    words: str

    def __str__(self) -> str:
        return (
            f"line {self.line} of the {self.part} file (task {self.task!r}) shares {RUN} words with line "
            f"{self.other_line} of the training file (trained task {self.other_task!r}): {self.words!r}"
        )


def exact_leaks(tasks: list[Task]) -> Iterator[str]:
    """One problem, with both lines and the remedy, for every tested input that is also trained on.

    A held-out task's queries may not stand among its own demonstrations either.
    """
    trained = _by_input(_trained(tasks))
    for task in tasks:
        tested = _tested(task)
        shown = _by_input(placed for placed in tested if placed.part == "training")
        for placed in tested:
            *_, key = _input_keys(placed.example)
            other = trained.get(key)
            if other is None and placed.part == "validation":
                other = shown.get(key)
            if other is not None:
                yield _same_input(placed, other)


def _by_input(examples: Iterable[_Placed]) -> dict[bytes, _Placed]:
    """The first example with each input, those of earlier exchanges included."""
    first: dict[bytes, _Placed] = {}
    for placed in examples:
        for key in _input_keys(placed.example):
            first.setdefault(key, placed)
    return first


def _same_input(tested: _Placed, other: _Placed) -> str:
    names = sorted({tested.task, other.task})
    where = f"task {names[0]!r}" if len(names) == 1 else f"tasks {tested.task!r} and {other.task!r}"
    remedy = "remove one" if tested.part == "validation" else "remove one: what is held out is not trained on"
    return (
        f"line {tested.example.line} of the {tested.part} file: the same input is on line {other.example.line} "
        f"of the training file ({where}); {remedy}"
    )


def _input_keys(example: Example) -> Iterator[bytes]:
    """The input of each exchange together with all before it; the last is the example's own."""
    digest = hashlib.sha256()
    for turn in example.earlier:
        digest.update(_normal(turn.input))
        yield digest.digest()
        digest.update(_normal(turn.output))
    digest.update(_normal(example.input))
    yield digest.digest()


def _normal(text: str) -> bytes:
    return " ".join(canonical(text).lower().split()).encode() + b"\n"


def near_leaks(tasks: list[Task]) -> list[NearLeak]:
    """Every tested example that shares a run of ten words with a trained one, in the tasks' order.

    Each is listed once, with its first such run and the first trained example that has it. Runs are
    compared by 64-bit hashes, in time n log n of the words.
    """
    vocabulary: dict[str, int] = {}
    trained = _Runs(_trained(tasks), vocabulary)
    tested = _Runs((placed for task in tasks for placed in _tested(task)), vocabulary)
    if not len(trained.hashes) or not len(tested.hashes):
        return []
    known, first = np.unique(trained.hashes, return_index=True)
    nearest = np.minimum(np.searchsorted(known, tested.hashes), len(known) - 1)
    shared = np.flatnonzero(known[nearest] == tested.hashes)
    _, once = np.unique(tested.owners[shared], return_index=True)
    spelled = list(vocabulary)
    leaks = []
    for run in shared[once]:
        placed = tested.examples[tested.owners[run]]
        other = trained.examples[trained.owners[first[nearest[run]]]]
        start = tested.starts[run]
        words = " ".join(spelled[word - 1] for word in tested.words[start : start + RUN])[:_SHOWN_CHARACTERS]
        leaks.append(NearLeak(placed.task, placed.part, placed.example.line, other.task, other.example.line, words))
    return leaks


class _Runs:
    """Every run of ten words in the inputs of some examples; none goes from one input into the next.

    Args:
        examples: where the runs are looked for.
        vocabulary: numbers words from 1; it grows by new ones.

    Attributes:
        words: the numbers of all words, int64 ``[words]``, a 0 after each input.
        starts: where in ``words`` each run starts, int64 ``[runs]``.
        owners: the index in ``examples`` of each run's example, int64 ``[runs]``.
        hashes: a hash of each run, uint64 ``[runs]``.
    """

    def __init__(self, examples: Iterable[_Placed], vocabulary: dict[str, int]) -> None:
        self.examples = list(examples)
        words = array("q")
        ends = array("q")
        for placed in self.examples:
            for text in (*(turn.input for turn in placed.example.earlier), placed.example.input):
                found = _WORD.findall(canonical(text).lower())
                spelled = ("#" if word[0].isdecimal() else word for word in found)
                words.extend(vocabulary.setdefault(word, len(vocabulary) + 1) for word in spelled)
                words.append(0)
            ends.append(len(words))
        self.words: npt.NDArray[np.int64] = np.array(words, dtype=np.int64)
        windows = max(0, len(words) - RUN + 1)
        hashes = np.zeros(windows, dtype=np.uint64)
        whole = np.ones(windows, dtype=np.bool_)
        for offset in range(RUN):
            word = self.words[offset : offset + windows]
            hashes = hashes * _BASE + word.astype(np.uint64)
            whole &= word > 0
        self.starts = np.flatnonzero(whole)
        self.hashes = hashes[self.starts]
        self.owners = np.searchsorted(np.array(ends, dtype=np.int64), self.starts, side="right")


def _trained(tasks: list[Task]) -> Iterator[_Placed]:
    for task in tasks:
        if task.definition.role == "train":
            yield from (_Placed(task.definition.name, "training", example) for example in task.demonstrations)


def _tested(task: Task) -> list[_Placed]:
    """A held-out task's demonstrations, then the queries."""
    name = task.definition.name
    shown = task.demonstrations if task.definition.role == "heldout" else []
    return [
        *(_Placed(name, "training", example) for example in shown),
        *(_Placed(name, "validation", example) for example in task.queries),
    ]
