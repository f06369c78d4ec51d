"""One training sequence as a person reads it."""

from dataclasses import dataclass

from manyicl_core.method.encoding import STOP, Encoder
from manyicl_core.method.objectives import Objective, supervised_answers
from manyicl_core.method.sequences import EncodedTask, Sequence
from manyicl_core.method.tasks import Task

# A token a character: the encoder that makes the tokens makes the text, so they cannot disagree.
_CHARACTERS = Encoder(tokenize=lambda text: [ord(character) for character in text], start=(), stop=ord(STOP))


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """An answer in a text: half-open character offsets, stop included; ``shot`` as in ``Answer``."""

    start: int
    end: int
    shot: int
    supervised: bool


@dataclass(frozen=True, slots=True)
class ShownSequence:
    """A sequence as text; ``documents`` are the offsets at which its documents start."""

    text: str
    documents: tuple[int, ...]
    answers: tuple[ShownAnswer, ...]


def show_sequence(task: Task, sequence: Sequence, objective: Objective) -> ShownSequence:
    """The text of a sequence of ``task``, and where its answers stand.

    A start token that the tokenizer puts before every text is not shown.
    """
    chosen = task.model_copy(update={"demonstrations": [task.demonstrations[index] for index in sequence.examples]})
    alone = len(sequence.documents) == len(sequence.examples)
    written = EncodedTask(chosen, _CHARACTERS).assemble(tuple(range(len(sequence.examples))), alone)
    supervised = set(supervised_answers(objective, written))
    return ShownSequence(
        text="".join(map(chr, written.tokens.tolist())),
        documents=written.documents,
        answers=tuple(
            ShownAnswer(answer.start, answer.end, answer.shot, answer in supervised) for answer in written.answers
        ),
    )
