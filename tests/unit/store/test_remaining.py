"""The expected end of a job, against recorded times."""

import itertools

import pytest

from manyicl_core.store.evaluations.remaining import (
    LATELY,
    evaluated_examples,
    evaluation_seconds,
    expected_evaluation_seconds,
    training_seconds,
)

STEPS = [2.1, 1.9, 2.0, 2.2, 1.8, 2.0, 9.5, 2.1, 1.9, 2.0, 2.0, 2.1, 1.9, 2.2, 2.0, 2.0, 2.0, 1.9, 2.1, 2.0] * 2


def test_one_slow_step_does_not_move_the_end() -> None:
    ends = [
        sum(STEPS[:done]) + training_seconds(len(STEPS) - done, STEPS[max(0, done - LATELY) : done])
        for done in range(5, len(STEPS) + 1)
    ]
    assert all(end == pytest.approx(sum(STEPS), rel=0.2) for end in ends)
    jumps = [abs(late - early) for early, late in itertools.pairwise(ends)]
    assert max(jumps) < 9.5, "no more than the slow step itself took"


def test_a_machine_that_has_become_slower_is_believed() -> None:
    assert training_seconds(10, [2.0] * 5 + [4.0] * 15) == 40


def test_results_with_more_demonstrations_take_longer() -> None:
    done = [(0, 20.0), (4, 21.0)]
    assert evaluation_seconds(done, [], 10, 1) == 0
    assert evaluation_seconds(done, [0], 10, 1) == pytest.approx(41 * 20 / 44)
    assert evaluation_seconds(done, [16], 10, 2) > evaluation_seconds(done, [16], 10, 1)


def test_the_evaluation_is_expected_by_what_goes_through_its_models() -> None:
    few = evaluated_examples([0, 4], 10, 1)
    assert few < evaluated_examples([0, 4, 16], 10, 1) < evaluated_examples([0, 4, 16], 10, 2)
    assert expected_evaluation_seconds(0, STEPS, 20) == 0
    # As many as three steps train take as long as one of them: there is no backward pass.
    assert expected_evaluation_seconds(60, STEPS, 20) == pytest.approx(2.0)
