"""What a job will do is known before it starts, to the token."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.method.objectives import stands_alone, supervised_answers
from manyicl_core.method.plan import TrainingPlan, count_sequences, few_shot_answers, plan_training
from manyicl_core.method.sequences import SequenceStream
from tests.unit.sample_tasks import numbered_task, pairs, room_for, stream_of, task_of

batch_sizes = st.integers(1, 5)


def sorting(pairs_: list[tuple[str, str]]) -> SequenceStream:
    task = task_of(pairs_, instruction="Sort.")
    return stream_of([task], 3, room_for(task, 2))


def counted(stream: SequenceStream, sequences: int, steps: int) -> TrainingPlan:
    """The totals of the stream's first sequences, counted from their text."""
    read = [bytes(stream.nth(number).tokens.tolist()).decode() for number in range(sequences)]
    found = [answer for number in range(sequences) for answer in stream.nth(number).answers]
    return TrainingPlan(
        sequences=sequences,
        steps=steps,
        tokens=sum(len(text.encode()) for text in read),
        target_tokens=sum(answer.end - answer.start for answer in found),
        answers=len(found),
    )


@given(pairs, batch_sizes, st.integers(1, 4))
def test_a_plan_by_epochs_is_the_sum_over_all_their_sequences(pairs_, batch_size, n_epochs):
    stream = sorting(pairs_)
    sequences = n_epochs * stream.epoch_length
    plan = plan_training(stream, "many_icl", batch_size, n_epochs, None)
    assert plan == counted(stream, sequences, math.ceil(sequences / batch_size))


@given(pairs, batch_sizes, st.integers(1, 2000))
def test_a_plan_by_tokens_is_the_fewest_whole_steps_that_meet_the_budget(pairs_, batch_size, budget):
    stream = sorting(pairs_)
    plan = plan_training(stream, "many_icl", batch_size, None, budget)
    assert plan == counted(stream, plan.steps * batch_size, plan.steps)
    assert plan.tokens >= budget
    assert counted(stream, (plan.steps - 1) * batch_size, plan.steps - 1).tokens < budget


@given(pairs, batch_sizes, st.integers(1, 6))
def test_a_budget_that_whole_steps_meet_exactly_needs_no_further_step(pairs_, batch_size, steps):
    stream = sorting(pairs_)
    exact = counted(stream, steps * batch_size, steps)
    assert plan_training(stream, "many_icl", batch_size, None, exact.tokens) == exact


@given(pairs, st.sampled_from(["many_icl", "few_shot", "zero_shot"]), st.booleans(), st.integers(1, 3))
def test_every_sequence_is_counted_as_it_is_made(pairs_, objective, balanced, n_epochs):
    labelled = task_of(pairs_, "labelled", labels=sorted({output.strip() for _, output in pairs_} | {"a", "b"}))
    other = numbered_task(7, weight=2.0)
    room = max(room_for(labelled, 3), room_for(other, 2))
    demonstrations = "balanced" if balanced else "natural"
    stream = stream_of([labelled, other], 3, room, stands_alone(objective), demonstrations=demonstrations)
    counts = count_sequences(stream, objective, 2, n_epochs, None)
    assert len(counts) == n_epochs * stream.epoch_length
    for number in range(len(counts)):
        sequence = stream.nth(number)
        supervised = supervised_answers(objective, sequence)
        borders = [*sequence.documents, len(sequence.tokens)]
        assert stream.tasks[counts.task[number]].name == sequence.task
        assert counts.demonstrations[number] == len(sequence.examples)
        assert counts.documents[number] == len(sequence.documents)
        assert counts.tokens[number] == len(sequence.tokens)
        assert counts.longest[number] == max(end - start for start, end in pairwise(borders))
        assert counts.target_tokens[number] == sum(answer.end - answer.start for answer in supervised)
        assert counts.answers[number] == len(supervised)


def test_a_count_that_stops_early_ends_with_an_epoch():
    stream = stream_of([numbered_task(10)], 3, room_for(numbered_task(10), 3))
    whole = count_sequences(stream, "many_icl", 2, 1000, None)
    part = count_sequences(stream, "many_icl", 2, 1000, None, most=stream.epoch_length + 1)
    assert len(part) == 2 * stream.epoch_length < len(whole)
    assert part.tokens.tolist() == whole.first(len(part)).tokens.tolist()
    assert len(count_sequences(stream, "many_icl", 2, None, 10**12, most=1)) == stream.epoch_length


@pytest.mark.parametrize("alone", [False, True])
def test_few_shot_learns_from_one_answer_a_sequence(alone):
    task = numbered_task(12)
    stream = stream_of([task], 3, room_for(task, 4), alone)
    joined = stream_of([task], 3, room_for(task, 4))
    tokens = int(count_sequences(joined, "few_shot", 1, 1, None).tokens.sum())
    assert few_shot_answers(stream, tokens) == pytest.approx(joined.epoch_length)
    assert few_shot_answers(stream, 10 * tokens) == pytest.approx(10 * joined.epoch_length)
