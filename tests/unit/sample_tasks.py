"""Tasks and an encoder that tests can calculate with."""

from collections.abc import Iterable

from hypothesis import strategies as st

from manyicl_core.method.dataset import Row, read_rows
from manyicl_core.method.encoding import Encoder
from manyicl_core.method.sequences import EncodedTask, SequenceStream, StreamSettings
from manyicl_core.method.tasks import Example, Task, TaskDefinition

# One token a byte: what a sequence says can be read back with `bytes(tokens).decode()`.
BYTES = Encoder(tokenize=lambda text: list(text.encode()), start=(), stop=ord("\n"))

_characters = st.characters(exclude_characters="\x00", codec="utf-8")  # a NUL is refused wherever it comes in
texts = st.text(_characters, min_size=1, max_size=12).filter(lambda text: bool(text.strip()))
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=12)
instructions = st.text(_characters, max_size=20)


def examples_of(pairs_: list[tuple[str, str]]) -> list[Example]:
    return [Example(input=input_, output=output, line=line) for line, (input_, output) in enumerate(pairs_, start=1)]


def task_of(pairs_: list[tuple[str, str]], name: str = "sort", **definition: object) -> Task:
    return Task(
        definition=TaskDefinition.model_validate({"name": name, **definition}), demonstrations=examples_of(pairs_)
    )


def numbered_task(size: int, name: str = "count", **definition: object) -> Task:
    """``size`` examples of the same length (up to 1000), all different."""
    return task_of([(f"item {number:03}", f"{number:03}") for number in range(size)], name, **definition)


def parse_rows(lines: Iterable[bytes]) -> list[Row]:
    """All rows of a file with these lines."""
    return list(read_rows(lines))


def room_for(task: Task, shots: int, encoder: Encoder = BYTES) -> int:
    """The tokens of the instruction and ``shots`` of the longest demonstrations."""
    longest = max(len(encoder.example(example)) for example in task.demonstrations)
    return len(encoder.instruction(task.definition.instruction)) + shots * (longest + len(encoder.separator()))


def stream_settings(max_sequence_tokens: int, **settings: object) -> StreamSettings:
    """Settings with a budget in bytes, which may be smaller than a job can ask for."""
    checked = StreamSettings.model_validate(settings)
    return checked.model_copy(update={"max_sequence_tokens": max_sequence_tokens})


def stream_of(
    tasks: list[Task], seed: int, max_sequence_tokens: int, alone: bool = False, **settings: object
) -> SequenceStream:
    """The stream of ``tasks``, one token a byte."""
    encoded = [EncodedTask(task, BYTES) for task in tasks]
    return SequenceStream(encoded, seed, stream_settings(max_sequence_tokens, **settings), alone)
