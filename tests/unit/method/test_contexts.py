"""A context is what a training sequence starts with."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.method.contexts import draw_context
from manyicl_core.method.sampling import context_order
from manyicl_core.method.sequences import EncodedTask
from manyicl_core.method.tasks import Task
from tests.unit.sample_tasks import BYTES, instructions, numbered_task, pairs, room_for, task_of

seeds = st.integers(0, 2**31 - 1)


def order_of(task: Task, seed: int, draw: int = 0) -> list[int]:
    definition = task.definition
    outputs = [example.output for example in task.demonstrations]
    return context_order(seed, draw, definition.name, outputs, definition.labels is not None)


@given(pairs, instructions, seeds, st.integers(0, 3))
def test_a_context_is_a_proper_prefix_of_the_training_sequence_with_its_demonstrations(pairs_, instruction, seed, draw):
    task = task_of(pairs_, instruction=instruction)
    order = order_of(task, seed, draw)
    for shots in range(len(order)):
        context = draw_context(BYTES, task.definition, task.demonstrations, shots, 10_000, seed, draw)
        trained = EncodedTask(task, BYTES).assemble(tuple(order[: shots + 1])).tokens.tolist()
        query = task.demonstrations[order[shots]]
        hosted = [*context.tokens, *BYTES.query(query.input)]
        assert context.shots == shots
        assert trained == [*hosted, *BYTES.answer(query.output)]


@given(pairs, instructions, seeds, st.integers(0, 4))
def test_a_context_keeps_within_its_room_and_holds_all_that_fits(pairs_, instruction, seed, shots):
    task = task_of(pairs_, instruction=instruction)
    room = room_for(task, shots)
    context = draw_context(BYTES, task.definition, task.demonstrations, 100, room, seed)
    assert len(context.tokens) <= room
    if context.shots < len(pairs_):
        one_more = draw_context(BYTES, task.definition, task.demonstrations, context.shots + 1, 10_000, seed)
        assert len(one_more.tokens) > room


def test_fewer_shots_are_the_beginning_of_more_shots():
    task = numbered_task(12)
    draws = [draw_context(BYTES, task.definition, task.demonstrations, shots, 10_000, 5) for shots in range(13)]
    for fewer, more in itertools.pairwise(draws):
        assert more.tokens[: len(fewer.tokens)] == fewer.tokens
        assert len(more.tokens) > len(fewer.tokens)


def test_another_draw_shows_other_demonstrations():
    task = numbered_task(12)
    first, again, other = (
        draw_context(BYTES, task.definition, task.demonstrations, 4, 10_000, 5, draw).tokens for draw in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_a_closed_label_set_is_shown_in_balance_and_free_text_as_drawn():
    outputs = ["rare"] * 2 + ["common"] * 18
    pairs_ = [(f"text {number:02}", output) for number, output in enumerate(outputs)]
    closed = task_of(pairs_, labels=["rare", "common"])
    shown = bytes(draw_context(BYTES, closed.definition, closed.demonstrations, 4, 10_000).tokens).decode()
    assert shown.count("Output: rare\n") == shown.count("Output: common\n") == 2


@given(pairs, instructions, seeds)
def test_a_context_tells_where_each_of_its_demonstrations_ends_and_which_they_are(pairs_, instruction, seed):
    task = task_of(pairs_, instruction=instruction)
    context = draw_context(BYTES, task.definition, task.demonstrations, 100, 10_000, seed)
    order = order_of(task, seed)
    assert list(context.lines) == [task.demonstrations[index].line for index in order]
    for shots, end in enumerate(context.ends):
        fewer = draw_context(BYTES, task.definition, task.demonstrations, shots, 10_000, seed)
        assert context.tokens[:end] == fewer.tokens
