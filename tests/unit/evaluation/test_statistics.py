"""Intervals and tests against closed forms, known values and simulated truth."""

import json
import time

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from manyicl_core.evaluation.statistics import Items, compare, interval, read_items, value


def items_of(scores: np.ndarray, metric: str = "accuracy") -> Items:
    """Items with these scores ``[items, draws]``; their texts play no part."""
    count, draws = scores.shape
    return Items(metric, tuple(range(1, count + 1)), scores.astype(float), ("",) * count, (("",) * draws,) * count)


def texts_of(references: list[str], predictions: list[list[str]]) -> Items:
    """Items of a macro-F1 task; ``predictions [items][draws]``."""
    scores = np.array(
        [[float(text == gold) for text in row] for gold, row in zip(references, predictions, strict=True)]
    )
    return Items(
        "macro_f1", tuple(range(len(references))), scores, tuple(references), tuple(tuple(row) for row in predictions)
    )


def test_with_one_draw_the_interval_of_a_mean_is_that_of_its_standard_error():
    scores = np.random.default_rng(1).normal(0.5, 0.1, size=(400, 1))
    found = interval([items_of(scores)])
    error = scores.std() / np.sqrt(scores.size)
    assert found.value == pytest.approx(scores.mean())
    assert found.low == pytest.approx(scores.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(scores.mean() + 1.96 * error, abs=0.1 * error)


def test_the_variance_over_items_and_draws_is_that_of_the_pigeonhole_bootstrap():
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(60, 1)) + rng.normal(size=(1, 5)) + rng.normal(size=(60, 5))
    found = interval([items_of(scores)])
    # Weights with mean 1 and variance 1 - 1/n, independent of each other: exact, by expansion.
    items, draws = scores.mean(1) - scores.mean(), scores.mean(0) - scores.mean()
    both = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean()
    variance = (items**2).mean() / 60 + (draws**2).mean() / 5 + (both**2).mean() / 300
    assert (found.high - found.low) / 3.92 == pytest.approx(np.sqrt(variance), rel=0.05)


@pytest.mark.parametrize("draws", [1, 8])
def test_95_of_100_intervals_hold_the_truth(draws: int):
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        scores = 0.5 + rng.normal(scale=0.2, size=(80, 1)) + rng.normal(scale=0.02, size=(80, draws))
        scores += rng.normal(scale=0.01, size=(1, draws))
        found = interval([items_of(scores)])
        held += found.low <= 0.5 <= found.high
    assert 0.92 <= held / 300 <= 0.98


def test_paired_tests_find_a_difference_that_is_not_there_in_5_of_100_cases():
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(300):
        first = rng.normal(size=(60, 3))
        found += compare([(items_of(first, "f1"), items_of(first + rng.normal(size=(60, 1)), "f1"))]).p_value < 0.05
    assert 0.025 <= found / 300 <= 0.085


def test_pairing_takes_out_what_both_models_share():
    rng = np.random.default_rng(5)
    shared = rng.normal(size=(100, 1))
    first, second = items_of(shared, "f1"), items_of(shared + 0.1 + rng.normal(scale=0.05, size=(100, 1)), "f1")
    found = compare([(first, second)])
    assert 0.08 < found.difference.low < found.difference.value < found.difference.high < 0.12
    assert found.p_value < 0.002
    assert found.mcnemar_p_value is None
    assert interval([first]).high > interval([second]).low, "unpaired, the intervals overlap"


def test_a_model_does_not_differ_from_itself():
    scores = items_of(np.random.default_rng(6).integers(2, size=(50, 3)))
    found = compare([(scores, scores)])
    assert (found.difference.low, found.difference.value, found.difference.high) == (0, 0, 0)
    assert (found.p_value, found.mcnemar_p_value) == (1.0, 1.0)


def test_a_p_value_says_whether_the_interval_leaves_out_zero():
    rng = np.random.default_rng(7)
    outcomes = set()
    for shift in np.linspace(0, 0.4, 30):
        first = rng.normal(size=(40, 2))
        pair = (items_of(first, "f1"), items_of(first + shift + rng.normal(size=(40, 2)), "f1"))
        found = compare([pair])
        if abs(found.p_value - 0.05) > 0.005:
            inside = found.difference.low <= 0 <= found.difference.high
            assert inside == (found.p_value > 0.05)
            outcomes.add(inside)
    assert outcomes == {True, False}


def zero_one(better: int, worse: int, same: int) -> tuple[Items, Items]:
    first = np.array([[0.0]] * better + [[1.0]] * (worse + same))
    second = np.array([[1.0]] * better + [[0.0]] * worse + [[1.0]] * same)
    return items_of(first), items_of(second)


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (10, 2), (2, 10), (7, 7), (120, 80)])
def test_mcnemars_test_is_the_exact_binomial_test_of_the_discordant_items(better: int, worse: int):
    pair = zero_one(better, worse, 5)
    expected = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert compare([pair]).mcnemar_p_value == pytest.approx(expected)
    halves = [zero_one(better, 0, 5), zero_one(0, worse, 5)]
    assert compare(halves).mcnemar_p_value == pytest.approx(expected), "items of several tasks are counted together"


def test_mcnemars_test_is_that_of_the_textbook():
    # 6 against 16 discordant pairs: twice the binomial tail of 6 of 22.
    assert compare([zero_one(6, 16, 80)]).mcnemar_p_value == pytest.approx(0.0524788)


def test_with_several_draws_an_item_counts_for_the_model_that_is_right_more_often():
    first = items_of(np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]]))
    second = items_of(np.array([[0, 1, 1], [1, 0, 1], [1, 1, 1]]))
    assert compare([(first, second)]).mcnemar_p_value == pytest.approx(0.5)  # 2 better, 1 equal


def test_macro_f1_is_scikit_learns_over_all_pairs():
    rng = np.random.default_rng(8)
    labels = np.array(["yes", "no", "maybe", "never"])
    references = [str(text) for text in labels[rng.integers(3, size=40)]]
    predictions = [[str(text) for text in row] for row in labels[rng.integers(4, size=(40, 3))]]
    expected = f1_score(np.repeat(references, 3), np.ravel(predictions), average="macro")
    found = interval([texts_of(references, predictions)])
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high


def test_labels_that_look_the_same_are_one_label():
    found = interval([texts_of(["caf\u00e9", "tea"], [["cafe\u0301"], ["tea"]])])
    assert (found.low, found.value, found.high) == (1, 1, 1)


def test_a_resample_of_macro_f1_is_scikit_learns_of_the_resampled_pairs(monkeypatch: pytest.MonkeyPatch):
    references = ["a", "a", "b", "c"]
    predictions = [["a", "b"], ["a", "a"], ["b", "c"], ["a", "c"]]
    counts = (np.array([[2.0, 0, 1, 1], [0, 4, 0, 0]]), np.array([[2.0, 0], [1, 1]]))
    monkeypatch.setattr("manyicl_core.evaluation.statistics._resampled_counts", lambda *_: counts)
    monkeypatch.setattr("manyicl_core.evaluation.statistics.RESAMPLES", 2)
    found = interval([texts_of(references, predictions)])
    first = f1_score([*"aabc"] * 2, [*"aaba"] * 2, average="macro")
    second = f1_score([*"aaaa"] * 2, [*"aaaa"] * 2, average="macro")
    low, high = np.quantile([first, second], [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_a_mean_over_tasks_weighs_every_task_the_same():
    rng = np.random.default_rng(9)
    small, large = rng.normal(size=(50, 1)), rng.normal(3, 1, size=(400, 2))
    found = interval([items_of(small, "f1"), items_of(large, "f1")])
    assert found.value == pytest.approx((small.mean() + large.mean()) / 2)
    items, draws = large.mean(1) - large.mean(), large.mean(0) - large.mean()
    both = large - large.mean(1, keepdims=True) - large.mean(0) + large.mean()
    variance = small.var() / 50 + (items**2).mean() / 400 + (draws**2).mean() / 2 + (both**2).mean() / 800
    assert (found.high - found.low) / 3.92 == pytest.approx(np.sqrt(variance / 4), rel=0.06)
    both_models = compare([(items_of(small), items_of(small + 1)), (items_of(large), items_of(large + 3))])
    assert both_models.difference.value == pytest.approx(2)


def test_only_the_same_items_and_draws_can_be_paired():
    scores = np.ones((4, 2))
    for other in (items_of(np.ones((3, 2))), items_of(np.ones((4, 1))), items_of(scores, "f1")):
        with pytest.raises(AssertionError):
            compare([(items_of(scores), other)])


def test_the_same_seed_gives_the_same_interval():
    scores = items_of(np.random.default_rng(10).normal(size=(30, 3)))
    assert interval([scores], 1) == interval([scores], 1) != interval([scores], 2)


def test_items_are_read_as_they_were_written():
    rows = [
        {"line": line, "draw": draw, "prediction": f"{line} {draw}", "reference": str(line), "score": line / 10 + draw}
        for draw in range(2)
        for line in (3, 5, 8)
    ]
    found = read_items("f1", [json.dumps(row) for row in rows])
    assert (found.metric, found.lines, found.references) == ("f1", (3, 5, 8), ("3", "5", "8"))
    assert found.predictions == (("3 0", "3 1"), ("5 0", "5 1"), ("8 0", "8 1"))
    np.testing.assert_allclose(found.scores, [[0.3, 1.3], [0.5, 1.5], [0.8, 1.8]])
    assert value(found) == pytest.approx(found.scores.mean())


def test_twenty_tasks_of_500_items_take_a_moment():
    rng = np.random.default_rng(11)
    tasks = [items_of(rng.integers(2, size=(500, 3))) for _ in range(20)]
    started = time.process_time()
    interval(tasks)
    assert time.process_time() - started < 3  # about 0.3 on one core
