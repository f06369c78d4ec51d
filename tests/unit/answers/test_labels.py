"""Whole labels: how probable each is, and which one is the answer."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.answers.labels import drawn, probabilities

_scores = st.lists(st.floats(-60, 0), min_size=1, max_size=8)


@given(_scores)
def test_probabilities_add_up_and_keep_the_ratios_of_the_scores(scores: list[float]):
    told = probabilities(scores)
    assert sum(told) == pytest.approx(1)
    for value, score in zip(told, scores, strict=True):
        assert value == pytest.approx(math.exp(score) / sum(map(math.exp, scores)))


@given(_scores)
def test_at_temperature_0_the_answer_is_the_most_probable_label(scores: list[float]):
    told = probabilities(scores)
    assert told[drawn(scores, 0, random.Random(0))] == max(told)


def test_scores_of_very_long_labels_do_not_vanish():
    assert probabilities([-2000.0, -2001.0])[0] == pytest.approx(1 / (1 + math.exp(-1)))


def test_answers_are_drawn_as_often_as_they_are_probable_and_seeds_repeat_them():
    scores = [math.log(0.7), math.log(0.3)]
    draws = [drawn(scores, 1.0, random.Random(seed)) for seed in range(2000)]
    assert draws.count(1) / len(draws) == pytest.approx(0.3, abs=0.03)
    assert draws == [drawn(scores, 1.0, random.Random(seed)) for seed in range(2000)]
