"""Which tokens of a sequence are learnt, and how much each counts."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.method.objectives import (
    Objective,
    stands_alone,
    supervised_answers,
    target_positions,
    target_weights,
)
from manyicl_core.method.sequences import Answer, EncodedTask, Sequence, SequenceStream
from manyicl_core.method.tasks import Example, Task, TaskDefinition, Turn
from tests.unit.sample_tasks import BYTES, examples_of, instructions, numbered_task, pairs, room_for, stream_of, task_of

OBJECTIVES: tuple[Objective, ...] = ("many_icl", "few_shot", "zero_shot")
seeds = st.integers(0, 2**31 - 1)


def text_of(sequence: Sequence, answer: Answer) -> str:
    return bytes(sequence.tokens[answer.start : answer.end].tolist()).decode()


def learnt(objective: Objective, sequence: Sequence) -> list[str]:
    return [text_of(sequence, answer) for answer in supervised_answers(objective, sequence)]


def test_many_icl_learns_every_answer_of_a_sequence():
    sequence = EncodedTask(numbered_task(4), BYTES).assemble((2, 0, 1))
    assert learnt("many_icl", sequence) == [" 002\n", " 000\n", " 001\n"]


def test_few_shot_learns_the_last_answer_of_a_sequence():
    sequence = EncodedTask(numbered_task(4), BYTES).assemble((2, 0, 1))
    assert learnt("few_shot", sequence) == [" 001\n"]


def test_zero_shot_learns_every_answer_each_with_no_demonstration_before_it():
    sequence = EncodedTask(numbered_task(4), BYTES).assemble((2, 0, 1), alone=True)
    assert learnt("zero_shot", sequence) == [" 002\n", " 000\n", " 001\n"]
    assert [answer.shot for answer in sequence.answers] == [0, 0, 0]


def streams(tasks: list[Task], seed: int, budget: int) -> dict[Objective, SequenceStream]:
    return {objective: stream_of(tasks, seed, budget, stands_alone(objective)) for objective in OBJECTIVES}


@given(pairs, instructions, seeds, st.integers(1, 4), st.integers(0, 6))
def test_many_icl_and_few_shot_differ_in_the_target_set_alone(pairs_, instruction, seed, shots, number):
    task = task_of(pairs_, instruction=instruction)
    drawn = streams([task], seed, room_for(task, shots))
    many, few = (drawn[objective].nth(number) for objective in ("many_icl", "few_shot"))
    assert many.examples == few.examples
    assert many.documents == few.documents == (0,)
    assert many.tokens.tolist() == few.tokens.tolist()
    assert supervised_answers("few_shot", few) == supervised_answers("many_icl", many)[-1:]
    assert supervised_answers("many_icl", many) == many.answers
    assert [answer.shot for answer in many.answers] == list(range(len(many.examples)))


def test_with_room_for_all_heads_zero_shot_draws_the_same_examples_in_the_same_steps():
    tasks = [numbered_task(20, "one", instruction="Count."), numbered_task(9, "two", weight=2.0)]
    drawn = [stream_of(tasks, 5, 10_000, stands_alone(objective), max_demonstrations=4) for objective in OBJECTIVES]
    assert len({stream.epoch_length for stream in drawn}) == 1
    for number in range(2 * drawn[0].epoch_length):
        sequences = [stream.nth(number) for stream in drawn]
        assert len({(sequence.task, sequence.examples) for sequence in sequences}) == 1


@given(pairs, instructions, seeds)
def test_zero_shot_goes_through_the_examples_in_the_order_of_the_others(pairs_, instruction, seed):
    task = task_of(pairs_, instruction=instruction)
    orders = []
    for alone in (False, True):
        settings = stream_of([task], seed, room_for(task, 3)).settings
        layout = EncodedTask(task, BYTES).layout(seed, 0, 0, settings, alone)
        orders.append(list(dict.fromkeys(itertools.chain.from_iterable(layout))))
    assert orders[0] == orders[1]


@given(pairs, instructions, seeds, st.integers(1, 4))
def test_each_document_of_zero_shot_is_the_instruction_and_one_example(pairs_, instruction, seed, shots):
    task = task_of(pairs_, instruction=instruction)
    budget = room_for(task, shots)
    stream = stream_of([task], seed, budget, alone=True)
    for index in range(stream.epoch_length):
        sequence = stream.sequence(0, index)
        assert len(sequence.tokens) <= budget
        borders = [*sequence.documents, len(sequence.tokens)]
        documents = [sequence.tokens[start:end].tolist() for start, end in itertools.pairwise(borders)]
        for document, example in zip(documents, sequence.examples, strict=True):
            encoded = BYTES.example(task.demonstrations[example])
            assert document == [*BYTES.instruction(instruction), *encoded.prompt, *encoded.answer]


def turns_task(trained: list[bool]) -> Task:
    """Conversations of two exchanges; ``trained`` says for each answer in order whether it counts."""
    examples = [
        Example(
            input=f"ask {number}",
            output=f"end {number}",
            line=number + 1,
            earlier=[Turn(input=f"hello {number}", output=f"mid {number}", trained=trained[2 * number])],
            trained=trained[2 * number + 1],
        )
        for number in range(len(trained) // 2)
    ]
    return Task(definition=TaskDefinition(name="talk"), demonstrations=examples)


@pytest.mark.parametrize(
    ("trained", "many", "few"),
    [
        ([True] * 4, [" mid 0\n", " end 0\n", " mid 1\n", " end 1\n"], [" mid 1\n", " end 1\n"]),
        ([False, True, True, False], [" end 0\n", " mid 1\n"], [" mid 1\n"]),
        ([True, True, False, False], [" mid 0\n", " end 0\n"], []),
        ([False] * 4, [], []),
    ],
)
def test_answers_of_no_weight_are_no_targets(trained: list[bool], many: list[str], few: list[str]):
    task = EncodedTask(turns_task(trained), BYTES)
    sequence, alone = task.assemble((0, 1)), task.assemble((0, 1), alone=True)
    assert learnt("many_icl", sequence) == learnt("zero_shot", alone) == many
    assert learnt("few_shot", sequence) == few


def test_target_positions_are_those_inside_the_answers_in_order():
    assert target_positions((Answer(2, 4, 0), Answer(7, 10, 1))).tolist() == [2, 3, 7, 8, 9]


@pytest.mark.parametrize("empty_of", [target_positions, lambda answers: target_weights(answers, "answer")])
def test_no_answers_have_no_positions_and_no_weights(empty_of: Callable[[tuple[Answer, ...]], object]):
    assert len(empty_of(())) == 0


def test_a_token_that_nothing_comes_before_cannot_be_learnt():
    with pytest.raises(AssertionError, match="first token"):
        target_positions((Answer(0, 2, 0),))


def test_by_token_every_token_counts_one_and_by_answer_every_answer():
    answers = (Answer(2, 4, 0), Answer(7, 12, 1), Answer(20, 21, 2))
    assert target_weights(answers, "token").tolist() == [1.0] * 8
    assert target_weights(answers, "answer").tolist() == pytest.approx([0.5, 0.5, 0.2, 0.2, 0.2, 0.2, 0.2, 1.0])


@given(pairs)
def test_by_answer_the_weights_of_each_answer_add_up_to_one(pairs_):
    task = Task(definition=TaskDefinition(name="sort"), demonstrations=examples_of(pairs_))
    answers = EncodedTask(task, BYTES).assemble(tuple(range(len(pairs_)))).answers
    weights = target_weights(answers, "answer")
    assert len(weights) == len(target_positions(answers))
    assert float(weights.sum()) == pytest.approx(len(answers), rel=1e-5)
