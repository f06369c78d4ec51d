"""What a task is: a name, an instruction, examples, and how its answers are judged."""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from manyicl_core.method.equality import canonical, folded, visible
from manyicl_core.request_body import RequestBody

Metric = Literal["accuracy", "macro_f1", "exact_match", "numeric", "f1", "rouge_l"]
Role = Literal["train", "heldout"]

MAX_TEXT_CHARACTERS = 1_000_000
"""Of any one text, so that nobody's takes all memory; what fits is counted in tokens."""
MAX_TASKS = 10_000
"""Of one job or evaluation."""


class Turn(BaseModel):
    """One exchange of a conversation; ``trained`` says whether its output may be a target."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    input: str
    output: str
    trained: bool = True


class Example(BaseModel):
    """One (input, output) pair, or the last exchange of a conversation.

    ``line`` is its 1-based line in the file it came from. ``earlier`` are the exchanges before it:
    they stand in front of it wherever it stands. ``trained`` is as in ``Turn``.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    input: str
    output: str
    line: int
    earlier: list[Turn] = Field(default_factory=list)
    trained: bool = True


def distinct_labels(labels: list[str]) -> list[str]:
    """The labels as they are: an answer is told as its label is listed, code point by code point.

    Raises:
        ValueError: one is empty, has white space around it, which an answer never has, or is listed twice. Two forms
            of one text are two labels: whoever lists both tells them apart.
    """
    found: set[str] = set()
    for label in labels:
        if not label.strip():
            raise ValueError("a label is empty; give every label some text")
        if label != label.strip():
            raise ValueError(f"the label {visible(label)} has white space before or behind its text; remove it")
        if label in found:
            raise ValueError(f"a label occurs twice, {visible(label)}; list each label once")
        found.add(label)
    return labels


class ListedLabels:
    """A closed set of answers in which outputs are looked up: white space around them and their form do not matter.

    Where two labels are canonically equal, each is found in its own form, and the first of them in any other.
    """

    def __init__(self, labels: Iterable[str]) -> None:
        self._listed = list(dict.fromkeys(labels))
        # Later ones win, so the first of the list comes last; the labels themselves before their other forms.
        self._labels = {canonical(label): label for label in reversed(self._listed)}
        self._labels |= {label: label for label in self._listed}
        self._folded = {folded(label): label for label in reversed(self._listed)}

    def find(self, output: str) -> str | None:
        """The label as it is listed, or None."""
        return self._labels.get(output.strip()) or self._labels.get(canonical(output.strip()))

    def read(self, written: str) -> str:
        """The label that a model has written, as it is listed: many tokenizers compose characters, or fold them.

        What is none of them, as an answer that was cut short, stays as it is.
        """
        label = self.find(written)
        return self._folded.get(folded(written), written) if label is None else label

    def told(self) -> str:
        """The first of them, for a message."""
        return ", ".join(visible(label) for label in self._listed[:20])


class TaskDefinition(RequestBody):
    """The part of a task that a user states; its examples come from files.

    ``labels`` closes the set of answers. ``weight`` scales how often a trained task is drawn.
    A ``heldout`` task is never trained on: its examples are demonstrations only.
    """

    model_config = ConfigDict(frozen=True)

    name: str = Field(min_length=1, max_length=64)
    instruction: str = Field(default="", max_length=MAX_TEXT_CHARACTERS)
    family: str = Field(default="", max_length=64)
    labels: list[str] | None = Field(default=None, min_length=2, max_length=1000)
    metric: Metric = "exact_match"
    weight: float = Field(default=1.0, gt=0, le=1000, allow_inf_nan=False)
    role: Role = "train"

    @field_validator("name", "instruction", "family")
    @classmethod
    def _no_nul(cls, text: str) -> str:
        # The database holds no such text: a job would fail when its results are written.
        if "\x00" in text:
            raise ValueError("a NUL character; remove it")
        return text

    @field_validator("labels")
    @classmethod
    def _labels_are_distinct(cls, labels: list[str] | None) -> list[str] | None:
        return None if labels is None else distinct_labels(labels)


class Task(BaseModel):
    """A task with its examples: ``demonstrations`` to train on or to show, ``queries`` to test."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    definition: TaskDefinition
    demonstrations: list[Example]
    queries: list[Example] = Field(default_factory=list)
