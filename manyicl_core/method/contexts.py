"""A context: an instruction and k demonstrations of one task, drawn and encoded."""

from dataclasses import dataclass

from manyicl_core.method.encoding import EncodedExample, Encoder
from manyicl_core.method.sampling import context_order
from manyicl_core.method.tasks import Example, TaskDefinition


@dataclass(frozen=True, slots=True)
class Context:
    """What a hosted or evaluated query stands after.

    Attributes:
        tokens: its ids; a query's prompt ids follow.
        shots: how many demonstrations it holds.
    """

    tokens: tuple[int, ...]
    shots: int


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
    room = max_tokens - len(encoder.instruction(definition.instruction))
    separator = len(encoder.separator())
    chosen: list[EncodedExample] = []
    for index in order[:shots]:
        example = encoder.example(examples[index])
        room -= len(example) + separator
        if room < 0:
            break
        chosen.append(example)
    tokens = tuple(encoder.context(definition.instruction, chosen))
    return Context(tokens, len(chosen))
