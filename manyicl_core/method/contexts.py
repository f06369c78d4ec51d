"""A context: an instruction and k demonstrations of one task, drawn and encoded."""

from collections.abc import Iterable
from dataclasses import dataclass

from manyicl_core.method.encoding import EncodedExample, Encoder
from manyicl_core.method.sampling import context_order
from manyicl_core.method.tasks import Example, TaskDefinition


@dataclass(frozen=True, slots=True)
class Context:
    """What a hosted or evaluated query stands after.

    Attributes:
        tokens: its ids; a query's prompt ids follow.
        lines: the ``line`` of each demonstration, in the order in which they are shown.
        ends: ``ends[k]`` tokens, from the start, are the context of the first k demonstrations.
    """

    tokens: tuple[int, ...]
    lines: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def shots(self) -> int:
        """How many demonstrations it holds."""
        return len(self.lines)


def draw_context(
    encoder: Encoder,
    definition: TaskDefinition,
    examples: list[Example],
    shots: int,
    max_tokens: int,
    seed: int = 0,
    draw: int = 0,
) -> Context:
    """A context of up to ``shots`` demonstrations and ``max_tokens`` tokens.

    Labels of a closed set are balanced. Demonstrations are whole; the first that does not fit
    ends the context.
    """
    balanced = definition.labels is not None
    order = context_order(seed, draw, definition.name, [example.output for example in examples], balanced)
    return fill_context(encoder, definition.instruction, (examples[index] for index in order[:shots]), max_tokens)


def fill_context(encoder: Encoder, instruction: str, examples: Iterable[Example], max_tokens: int) -> Context:
    """A context of the first of ``examples``, as many as fit whole into ``max_tokens``."""
    separator = len(encoder.separator())
    ends = [len(encoder.instruction(instruction))]
    chosen: list[EncodedExample] = []
    lines: list[int] = []
    for example in examples:
        encoded = encoder.example(example)
        end = ends[-1] + len(encoded) + separator
        if end > max_tokens:
            break
        chosen.append(encoded)
        lines.append(example.line)
        ends.append(end)
    return Context(tuple(encoder.context(instruction, chosen)), tuple(lines), tuple(ends))
