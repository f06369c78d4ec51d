"""The learning rate of every step."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.training.schedule import learning_rate
from tests.unit.training.specs import make_spec

MODEL = Path("model")


@given(
    st.integers(1, 60),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.sampled_from([1e-4, 2.0]),
    st.sampled_from(["cosine", "linear", "constant"]),
)
def test_the_learning_rate_rises_to_its_peak_and_does_not_rise_again(steps, warmup_fraction, peak, schedule):
    spec = make_spec(MODEL, learning_rate=peak, warmup_fraction=warmup_fraction, schedule=schedule)
    rates = [learning_rate(spec, step, steps) for step in range(steps)]
    top = max(1, round(warmup_fraction * steps)) - 1
    assert rates[top] == pytest.approx(peak)
    assert max(rates) == pytest.approx(peak)
    assert min(rates) > 0
    assert rates[: top + 1] == pytest.approx([peak * (step + 1) / (top + 1) for step in range(top + 1)])
    falling = rates[top + 1 :]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize(
    ("schedule", "middle", "end"),
    [
        ("cosine", 0.5, 0.5 * (1 + math.cos(math.pi * 89 / 90))),
        ("linear", 0.5, 1 / 90),
        ("constant", 1.0, 1.0),
    ],
)
def test_after_warm_up_the_rate_follows_its_schedule(schedule: str, middle: float, end: float):
    spec = make_spec(MODEL, learning_rate=1.0, warmup_fraction=0.1, schedule=schedule)
    assert learning_rate(spec, 10, 100) == 1.0
    assert learning_rate(spec, 55, 100) == pytest.approx(middle)
    assert learning_rate(spec, 99, 100) == pytest.approx(end)


def test_a_quarter_of_the_way_down_tells_cosine_from_linear():
    rates = [
        learning_rate(make_spec(MODEL, learning_rate=1.0, warmup_fraction=0.2, schedule=schedule), 40, 100)
        for schedule in ("cosine", "linear")
    ]
    assert rates == pytest.approx([0.5 * (1 + math.sqrt(0.5)), 0.75])
