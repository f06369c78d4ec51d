"""The data stream: whole demonstrations, every answer a target, a pure function of seed, epoch and index."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.method.encoding import escape_answer
from manyicl_core.method.sequences import EncodedTask, Sequence, SequenceStream
from manyicl_core.method.tasks import Task
from tests.unit.sample_tasks import BYTES, instructions, numbered_task, pairs, room_for, task_of, texts

seeds = st.integers(0, 2**31 - 1)
shots = st.integers(1, 5)


def as_text(ids: list[int]) -> str:
    return bytes(ids).decode()


def expected_text(task: Task, indices: tuple[int, ...]) -> str:
    """What a sequence says, put together from the users' texts alone."""
    instruction = task.definition.instruction.strip()
    head = f"{instruction}\n\n" if instruction else ""
    chosen = [task.demonstrations[index] for index in indices]
    return head + "\n".join(
        f"Input: {example.input.strip()}\nOutput: {escape_answer(example.output.strip())}\n" for example in chosen
    )


def one_epoch(stream: SequenceStream, epoch: int = 0) -> list[Sequence]:
    return [stream.sequence(epoch, index) for index in range(stream.epoch_length)]


@given(pairs, instructions, seeds, shots)
def test_a_sequence_is_the_instruction_and_whole_examples_within_the_budget(pairs_, instruction, seed, shots_):
    task = task_of(pairs_, instruction=instruction)
    budget = room_for(task, shots_)
    for sequence in one_epoch(SequenceStream([EncodedTask(task, BYTES)], seed, budget)):
        assert as_text(sequence.tokens.tolist()) == expected_text(task, sequence.examples)
        assert 0 < len(sequence.tokens) <= budget


@given(pairs, instructions, seeds, shots)
def test_an_answer_span_holds_its_answer_and_the_stop_and_nothing_else(pairs_, instruction, seed, shots_):
    task = task_of(pairs_, instruction=instruction)
    for sequence in one_epoch(SequenceStream([EncodedTask(task, BYTES)], seed, room_for(task, shots_))):
        tokens = sequence.tokens.tolist()
        for index, (start, end) in zip(sequence.examples, sequence.answer_spans, strict=True):
            assert as_text(tokens[start:end]) == f" {escape_answer(task.demonstrations[index].output.strip())}\n"
            assert tokens[start:end].index(BYTES.stop) == end - start - 1
        assert sequence.answer_spans[-1][1] == len(tokens), "the last token is a target"


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), texts)
def test_no_token_of_a_real_tokenizer_crosses_the_border_of_an_answer(tiny_model: Path, pairs_, instruction):
    encoder = load_encoder(tiny_model)
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    task = task_of(pairs_, instruction=instruction)
    sequence = EncodedTask(task, encoder).assemble(tuple(range(len(pairs_))))
    for (start, end), (_, output) in zip(sequence.answer_spans, pairs_, strict=True):
        answer = sequence.tokens[start:end].tolist()
        assert tokenizer.decode(answer, skip_special_tokens=False) == f" {escape_answer(output.strip())}\n"
        assert answer.index(encoder.stop) == len(answer) - 1
    whole = tokenizer.decode(sequence.tokens.tolist(), skip_special_tokens=False)
    assert whole == expected_text(task, sequence.examples)


def test_a_sequence_starts_with_the_ids_that_the_tokenizer_puts_before_every_text():
    with_start = type(BYTES)(BYTES.tokenize, (7, 8), BYTES.stop)
    for instruction in ("", "Sort."):
        tokens = EncodedTask(task_of([("a", "b")], instruction=instruction), with_start).assemble((0,)).tokens
        plain = EncodedTask(task_of([("a", "b")], instruction=instruction), BYTES).assemble((0,)).tokens
        assert tokens.tolist() == [7, 8, *plain.tolist()]


@given(pairs, seeds, st.integers(0, 3), st.integers(0, 3), shots)
def test_every_example_stands_in_a_round_and_never_twice_in_a_sequence(pairs_, seed, epoch, round_, shots_):
    task = task_of(pairs_)
    layout = EncodedTask(task, BYTES).layout(seed, epoch, round_, room_for(task, shots_))
    assert {index for indices in layout for index in indices} == set(range(len(pairs_)))
    assert all(len(set(indices)) == len(indices) for indices in layout)
    before_last = [index for indices in layout[:-1] for index in indices]
    assert len(set(before_last)) == len(before_last), "only the last sequence of a round is topped up"


@given(pairs, seeds, shots)
def test_a_sequence_ends_only_where_the_next_example_does_not_fit(pairs_, seed, shots_):
    task = task_of(pairs_)
    budget = room_for(task, shots_)
    encoded = EncodedTask(task, BYTES)
    layout = encoded.layout(seed, 0, 0, budget)
    order = list(dict.fromkeys(index for indices in layout for index in indices))
    position = 0
    for indices in layout:
        position += len(indices)
        following = order[position % len(order)]
        if len(indices) < len(order):
            longer = len(encoded.assemble((*indices, following)).tokens)
            assert longer > budget


@pytest.mark.parametrize("instruction", ["", "Count."])
def test_a_sequence_may_be_as_long_as_the_budget_to_the_token(instruction: str):
    task = numbered_task(9, instruction=instruction)
    budget = len(expected_text(task, (0, 1, 2)))
    layout = EncodedTask(task, BYTES).layout(1, 0, 0, budget)
    assert [len(indices) for indices in layout] == [3, 3, 3]


@given(pairs, pairs, seeds, shots, st.randoms(use_true_random=False))
def test_a_sequence_depends_on_nothing_but_seed_epoch_and_index(first, second, seed, shots_, shuffler: random.Random):
    tasks = [task_of(first, "one", weight=2.0), task_of(second, "two", instruction="Sort.")]
    budget = max(room_for(task, shots_) for task in tasks)

    def fresh() -> SequenceStream:
        return SequenceStream([EncodedTask(task, BYTES) for task in tasks], seed, budget)

    stream = fresh()
    places = [(epoch, index) for epoch in range(3) for index in range(stream.epoch_length)]
    in_order = {place: stream.sequence(*place) for place in places}
    shuffler.shuffle(places)
    for epoch, index in places:
        for asked in (stream.sequence(epoch, index), fresh().sequence(epoch, index)):
            assert asked.tokens.tolist() == in_order[epoch, index].tokens.tolist()
            assert asked.answer_spans == in_order[epoch, index].answer_spans


@given(pairs, seeds, st.integers(0, 40))
def test_the_nth_sequence_counts_on_over_the_epochs(pairs_, seed, number):
    task = task_of(pairs_)
    stream = SequenceStream([EncodedTask(task, BYTES)], seed, room_for(task, 2))
    epoch, index = number // stream.epoch_length, number % stream.epoch_length
    assert stream.nth(number).examples == stream.sequence(epoch, index).examples


def test_another_seed_draws_other_sequences_and_the_same_seed_the_same():
    task = EncodedTask(numbered_task(30), BYTES)
    draws = [[sequence.examples for sequence in one_epoch(SequenceStream([task], seed, 200))] for seed in (1, 1, 2)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_demonstrations_are_redrawn_every_epoch():
    stream = SequenceStream([EncodedTask(numbered_task(30), BYTES)], 1, 200)
    epochs = [{sequence.examples for sequence in one_epoch(stream, epoch)} for epoch in range(3)]
    assert not epochs[0] & epochs[1]
    assert not epochs[1] & epochs[2]


def test_two_tasks_of_equal_size_are_not_drawn_in_the_same_order():
    first, second = (EncodedTask(numbered_task(30, name), BYTES) for name in ("one", "two"))
    assert first.layout(1, 0, 0, 200) != second.layout(1, 0, 0, 200)


def shares(stream: SequenceStream, epoch: int) -> Counter[str]:
    return Counter(sequence.task for sequence in one_epoch(stream, epoch))


def test_a_large_and_a_small_task_get_equal_shares():
    large, small = numbered_task(60, "large"), numbered_task(6, "small")
    stream = SequenceStream([EncodedTask(large, BYTES), EncodedTask(small, BYTES)], 1, room_for(large, 3))
    for epoch in range(3):
        assert shares(stream, epoch) == {"large": 11, "small": 11}


def test_shares_follow_the_weights():
    tasks = [numbered_task(30, "heavy", weight=3.0), numbered_task(30, "light", weight=1.0)]
    stream = SequenceStream([EncodedTask(task, BYTES) for task in tasks], 1, room_for(tasks[0], 3))
    for epoch in range(3):
        assert shares(stream, epoch) == {"heavy": 15, "light": 5}


def test_a_task_of_tiny_weight_still_has_a_sequence_in_every_epoch():
    tasks = [numbered_task(30, "heavy", weight=1000.0), numbered_task(30, "light", weight=0.001)]
    stream = SequenceStream([EncodedTask(task, BYTES) for task in tasks], 1, room_for(tasks[0], 3))
    assert shares(stream, 0)["light"] == shares(stream, 1)["light"] == 1


def test_a_small_task_goes_through_new_orders_within_an_epoch():
    large, small = numbered_task(60, "large"), numbered_task(6, "small")
    stream = SequenceStream([EncodedTask(large, BYTES), EncodedTask(small, BYTES)], 1, room_for(large, 3))
    drawn = [sequence.examples for sequence in one_epoch(stream) if sequence.task == "small"]
    assert len(set(drawn)) > 2
    assert {index for examples in drawn for index in examples} == set(range(6))


@pytest.mark.parametrize("instruction", ["", "Sort the message."])
def test_an_example_fits_exactly_up_to_the_budget(instruction: str):
    task = task_of([("short", "a"), ("a longer input", "b")], instruction=instruction)
    encoded = EncodedTask(task, BYTES)
    needed = len(expected_text(task, (1,)))
    assert encoded.check_fits(needed) == []
    [problem] = encoded.check_fits(needed - 1)
    assert (problem.task, problem.line, problem.tokens, problem.budget) == ("sort", 2, needed, needed - 1)
    assert "line 2" in str(problem)
