"""What a job will do is known before it starts, to the token."""

import math

from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.method.plan import TrainingPlan, plan_training
from manyicl_core.method.sequences import SequenceStream
from tests.unit.sample_tasks import pairs, room_for, stream_of, task_of

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
