"""Demonstrations spread over the inputs, and the choice between tried contexts."""

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from manyicl_core.method.selection import Scored, cheapest_good, spread_order


def closeness(points: list[float]) -> Callable[[int], NDArray[np.floating]]:
    """The similarity of points on a line: the nearer the greater."""
    return lambda position: -np.abs(np.array(points) - points[position])


@given(st.lists(st.integers(0, 50).map(float), min_size=1, max_size=20))
def test_every_candidate_comes_once_and_each_is_the_farthest_from_all_before_it(points):
    order = list(spread_order([""] * len(points), closeness(points)))
    assert sorted(order) == list(range(len(points)))
    assert order[0] == 0
    for count in range(1, len(points)):
        distances = [min(abs(point - points[before]) for before in order[:count]) for point in points]
        assert distances[order[count]] == max(distances[left] for left in order[count:])


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=20))
def test_the_groups_come_in_the_order_of_the_candidates(groups):
    points = [float(position**2) for position in range(len(groups))]
    order = list(spread_order(groups, closeness(points)))
    assert sorted(order) == list(range(len(groups)))
    assert [groups[position] for position in order] == groups


def test_three_heaps_give_one_of_each_before_any_gives_two():
    points = [0.0, 0.1, 0.2, 5.0, 5.1, 9.0, 9.1, 9.2]
    first = list(spread_order([""] * len(points), closeness(points)))[:3]
    assert {points[position] // 4 for position in first} == {0.0, 1.0, 2.0}


def test_of_contexts_that_are_equally_good_the_shortest_is_taken():
    right, half = (1.0,) * 20, (1.0, 0.0) * 10
    assert cheapest_good([Scored(900, right), Scored(300, right), Scored(500, right), Scored(100, half)]) == 1


def test_a_shorter_context_wins_within_the_noise_and_loses_outside():
    best = (1.0,) * 19 + (0.0,)
    one_worse = (1.0,) * 18 + (0.0, 0.0)
    five_worse = (0.0,) * 5 + (1.0,) * 14 + (0.0,)
    assert cheapest_good([Scored(900, best), Scored(300, one_worse)]) == 1
    assert cheapest_good([Scored(900, best), Scored(300, five_worse)]) == 0
