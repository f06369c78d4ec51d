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
from manyicl_core.method.tasks import Example, Task, TaskDefinition, Turn
from tests.unit.sample_tasks import (
    BYTES,
    instructions,
    numbered_task,
    pairs,
    room_for,
    stream_of,
    stream_settings,
    task_of,
    texts,
)

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
    for sequence in one_epoch(stream_of([task], seed, budget)):
        assert as_text(sequence.tokens.tolist()) == expected_text(task, sequence.examples)
        assert 0 < len(sequence.tokens) <= budget


@given(pairs, instructions, seeds, shots)
def test_an_answer_span_holds_its_answer_and_the_stop_and_nothing_else(pairs_, instruction, seed, shots_):
    task = task_of(pairs_, instruction=instruction)
    for sequence in one_epoch(stream_of([task], seed, room_for(task, shots_))):
        tokens = sequence.tokens.tolist()
        for index, answer in zip(sequence.examples, sequence.answers, strict=True):
            start, end = answer.start, answer.end
            assert as_text(tokens[start:end]) == f" {escape_answer(task.demonstrations[index].output.strip())}\n"
            assert tokens[start:end].index(BYTES.stop) == end - start - 1
        assert sequence.answers[-1].end == len(tokens), "the last token is a target"


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), texts)
def test_no_token_of_a_real_tokenizer_crosses_the_border_of_an_answer(tiny_model: Path, pairs_, instruction):
    encoder = load_encoder(tiny_model)
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    task = task_of(pairs_, instruction=instruction)
    sequence = EncodedTask(task, encoder).assemble(tuple(range(len(pairs_))))
    for span, (_, output) in zip(sequence.answers, pairs_, strict=True):
        answer = sequence.tokens[span.start : span.end].tolist()
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
    layout = EncodedTask(task, BYTES).layout(seed, epoch, round_, stream_settings(room_for(task, shots_)))
    assert {index for indices in layout for index in indices} == set(range(len(pairs_)))
    assert all(len(set(indices)) == len(indices) for indices in layout)
    before_last = [index for indices in layout[:-1] for index in indices]
    assert len(set(before_last)) == len(before_last), "only the last sequence of a round is topped up"


@given(pairs, seeds, shots)
def test_a_sequence_ends_only_where_the_next_example_does_not_fit(pairs_, seed, shots_):
    task = task_of(pairs_)
    budget = room_for(task, shots_)
    encoded = EncodedTask(task, BYTES)
    layout = encoded.layout(seed, 0, 0, stream_settings(budget))
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
    layout = EncodedTask(task, BYTES).layout(1, 0, 0, stream_settings(budget))
    assert [len(indices) for indices in layout] == [3, 3, 3]


@given(pairs, pairs, seeds, shots, st.randoms(use_true_random=False))
def test_a_sequence_depends_on_nothing_but_seed_epoch_and_index(first, second, seed, shots_, shuffler: random.Random):
    tasks = [task_of(first, "one", weight=2.0), task_of(second, "two", instruction="Sort.")]
    budget = max(room_for(task, shots_) for task in tasks)

    def fresh() -> SequenceStream:
        return stream_of(tasks, seed, budget)

    stream = fresh()
    places = [(epoch, index) for epoch in range(3) for index in range(stream.epoch_length)]
    in_order = {place: stream.sequence(*place) for place in places}
    shuffler.shuffle(places)
    for epoch, index in places:
        for asked in (stream.sequence(epoch, index), fresh().sequence(epoch, index)):
            assert asked.tokens.tolist() == in_order[epoch, index].tokens.tolist()
            assert asked.answers == in_order[epoch, index].answers


@given(pairs, seeds, st.integers(0, 40))
def test_the_nth_sequence_counts_on_over_the_epochs(pairs_, seed, number):
    task = task_of(pairs_)
    stream = stream_of([task], seed, room_for(task, 2))
    epoch, index = number // stream.epoch_length, number % stream.epoch_length
    assert stream.nth(number).examples == stream.sequence(epoch, index).examples


def test_another_seed_draws_other_sequences_and_the_same_seed_the_same():
    task = numbered_task(30)
    draws = [[sequence.examples for sequence in one_epoch(stream_of([task], seed, 200))] for seed in (1, 1, 2)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_demonstrations_are_redrawn_every_epoch():
    stream = stream_of([numbered_task(30)], 1, 200)
    epochs = [{sequence.examples for sequence in one_epoch(stream, epoch)} for epoch in range(3)]
    assert not epochs[0] & epochs[1]
    assert not epochs[1] & epochs[2]


def test_two_tasks_of_equal_size_are_not_drawn_in_the_same_order():
    first, second = (EncodedTask(numbered_task(30, name), BYTES) for name in ("one", "two"))
    settings = stream_settings(200)
    assert first.layout(1, 0, 0, settings) != second.layout(1, 0, 0, settings)


def shares(stream: SequenceStream, epoch: int) -> Counter[str]:
    return Counter(sequence.task for sequence in one_epoch(stream, epoch))


def test_a_large_and_a_small_task_get_equal_shares():
    large, small = numbered_task(60, "large"), numbered_task(6, "small")
    stream = stream_of([large, small], 1, room_for(large, 3))
    for epoch in range(3):
        assert shares(stream, epoch) == {"large": 11, "small": 11}


def test_shares_follow_the_weights():
    tasks = [numbered_task(30, "heavy", weight=3.0), numbered_task(30, "light", weight=1.0)]
    stream = stream_of(tasks, 1, room_for(tasks[0], 3))
    for epoch in range(3):
        assert shares(stream, epoch) == {"heavy": 15, "light": 5}


@pytest.mark.parametrize(
    ("mixing", "expected"),
    [
        # Sizes 16, 4 and 1 with the weights 1, 1 and 3: 21 sequences in all.
        ({"mixing": "uniform"}, {"large": 4, "middle": 4, "small": 13}),  # 21 / 5 of each weight
        ({"mixing": "proportional"}, {"large": 15, "middle": 4, "small": 3}),  # 21 x 16, 4 and 3 of 23
        ({"mixing": "temperature", "temperature": 2.0}, {"large": 9, "middle": 5, "small": 7}),  # x 4, 2 and 3 of 9
        ({"mixing": "temperature", "temperature": 1.0}, {"large": 15, "middle": 4, "small": 3}),
        ({"mixing": "temperature", "temperature": 1000.0}, {"large": 4, "middle": 4, "small": 13}),
    ],
)
def test_shares_follow_mixing_and_weights(mixing: dict[str, object], expected: dict[str, int]):
    tasks = [numbered_task(48, "large"), numbered_task(12, "middle"), numbered_task(3, "small", weight=3.0)]
    stream = stream_of(tasks, 1, room_for(tasks[0], 3), **mixing)
    for epoch in range(2):
        assert shares(stream, epoch) == expected
    assert stream.epoch_length == sum(expected.values())


def test_a_task_with_less_than_its_size_is_seen_in_other_parts_in_other_epochs():
    large, small = numbered_task(60, "large"), numbered_task(6, "small")
    stream = stream_of([large, small], 1, room_for(large, 3))
    seen = [
        {index for sequence in one_epoch(stream, epoch) if sequence.task == "large" for index in sequence.examples}
        for epoch in range(2)
    ]
    assert len(seen[0]) == len(seen[1]) == 33
    assert seen[0] != seen[1]


def test_a_task_of_tiny_weight_still_has_a_sequence_in_every_epoch():
    tasks = [numbered_task(30, "heavy", weight=1000.0), numbered_task(30, "light", weight=0.001)]
    stream = stream_of(tasks, 1, room_for(tasks[0], 3))
    assert shares(stream, 0)["light"] == shares(stream, 1)["light"] == 1


def test_a_small_task_goes_through_new_orders_within_an_epoch():
    large, small = numbered_task(60, "large"), numbered_task(6, "small")
    stream = stream_of([large, small], 1, room_for(large, 3))
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


@given(pairs, seeds, st.integers(1, 4), st.booleans())
def test_no_sequence_holds_more_demonstrations_than_allowed(pairs_, seed, most, alone):
    task = task_of(pairs_)
    stream = stream_of([task], seed, room_for(task, len(pairs_)), alone, max_demonstrations=most)
    lengths = [len(sequence.examples) for sequence in one_epoch(stream)]
    assert set(lengths) == {min(most, len(pairs_))}
    assert {index for sequence in one_epoch(stream) for index in sequence.examples} == set(range(len(pairs_)))


def labelled(outputs: list[str], closed: bool = True) -> Task:
    labels = sorted(set(outputs)) if closed else None
    return task_of([(f"text {number:02}", output) for number, output in enumerate(outputs)], labels=labels)


@given(
    st.lists(st.sampled_from(["aaa", "bbb", "ccc"]), min_size=2, max_size=20).filter(lambda o: len(set(o)) > 1),
    seeds,
    st.integers(1, 8),
    st.booleans(),
)
def test_balanced_demonstrations_never_repeat_one_in_a_sequence_and_leave_none_out(outputs, seed, shots_, alone):
    task = labelled(outputs)
    settings = stream_settings(room_for(task, shots_), demonstrations="balanced")
    layout = EncodedTask(task, BYTES).layout(seed, 0, 0, settings, alone)
    assert all(len(set(indices)) == len(indices) for indices in layout)
    assert {index for indices in layout for index in indices} == set(range(len(outputs)))


def test_balanced_demonstrations_show_every_label_equally_often_in_a_sequence():
    outputs = ["rare"] * 4 + ["many"] * 16
    for closed, balanced in ((True, True), (False, False)):
        task = labelled(outputs, closed)
        settings = stream_settings(room_for(task, 4), demonstrations="balanced")
        layout = EncodedTask(task, BYTES).layout(1, 0, 0, settings)
        counts = [Counter(outputs[index] for index in indices) for indices in layout]
        assert (counts == [{"rare": 2, "many": 2}] * len(layout)) == balanced, "free text has no labels to balance"
    natural = EncodedTask(labelled(outputs), BYTES).layout(1, 0, 0, stream_settings(room_for(task, 4)))
    assert sorted(index for indices in natural for index in indices) == list(range(20))


CONVERSATION = Example(
    input="and now?",
    output="fine",
    line=1,
    earlier=[Turn(input="hello", output="hi", trained=False), Turn(input="how are you?", output="so so\nla la")],
)
SAID = "Input: hello\nOutput: hi\n\nInput: how are you?\nOutput: so so\\nla la\n\nInput: and now?\nOutput: fine\n"


def test_a_conversation_reads_as_consecutive_demonstrations_and_only_trained_answers_are_marked():
    plain = Example(input="alone", output="yes", line=2)
    task = Task(definition=TaskDefinition(name="talk", instruction="Talk."), demonstrations=[CONVERSATION, plain])
    sequence = EncodedTask(task, BYTES).assemble((1, 0))
    tokens = sequence.tokens.tolist()
    assert as_text(tokens) == f"Talk.\n\nInput: alone\nOutput: yes\n\n{SAID}"
    marked = [(as_text(tokens[answer.start : answer.end]), answer.shot) for answer in sequence.answers]
    assert marked == [(" yes\n", 0), (" so so\\nla la\n", 1), (" fine\n", 1)]


def test_a_conversation_is_kept_whole_in_a_document_of_its_own():
    task = Task(definition=TaskDefinition(name="talk"), demonstrations=[CONVERSATION, CONVERSATION])
    sequence = EncodedTask(task, BYTES).assemble((0, 1), alone=True)
    assert sequence.documents == (0, len(SAID))
    assert as_text(sequence.tokens.tolist()) == SAID + SAID
    assert [answer.shot for answer in sequence.answers] == [0, 0, 0, 0]


def test_a_conversation_counts_with_all_its_turns_against_the_budget():
    task = Task(definition=TaskDefinition(name="talk"), demonstrations=[CONVERSATION])
    encoded = EncodedTask(task, BYTES)
    assert encoded.check_fits(len(SAID)) == []
    [problem] = encoded.check_fits(len(SAID) - 1)
    assert problem.tokens == len(SAID)
