"""Metrics against values that are calculated by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.evaluation.metrics import rouge_l, score, token_f1


@pytest.mark.parametrize(
    ("prediction", "reference", "value"),
    [
        ("the red box", "red box", 1.0),  # articles do not count
        ("Red, BOX!", "red box", 1.0),  # nor do case and punctuation
        ("red box", "red lamp", 0.5),  # 1 of 2 words, 1 of 2
        ("red", "a red box came", 0.5),  # precision 1, recall 1/3 of "red box came"
        ("red red red", "red box", 0.4),  # one red counts: precision 1/3, recall 1/2
        ("lamp", "box", 0.0),
        ("", "box", 0.0),
        ("the", "a", 1.0),  # nothing is left of both
        ("", "", 1.0),
    ],
)
def test_the_f1_of_words_is_as_calculated_by_hand(prediction: str, reference: str, value: float):
    assert token_f1(prediction, reference) == pytest.approx(value)


@pytest.mark.parametrize(
    ("prediction", "reference", "value"),
    [
        ("the cat sat on the mat", "the cat sat on the mat", 1.0),
        ("police killed the gunman", "police kill the gunman", 1.0),  # stemmed: kill, killed
        ("police ended the gunman", "police kill the gunman", 0.75),  # 3 of 4 words in order
        ("the gunman police killed", "police kill the gunman", 0.5),  # 2 of 4 in order
        ("a b c", "a x y z", 2 / 7),  # precision 1/3, recall 1/4
        ("lamp", "box", 0.0),
        ("", "box", 0.0),
    ],
)
def test_rouge_l_is_as_calculated_by_hand(prediction: str, reference: str, value: float):
    assert rouge_l(prediction, reference) == pytest.approx(value)


@pytest.mark.parametrize("metric", ["accuracy", "exact_match"])
def test_exact_metrics_count_equal_answers_without_outer_space(metric: str):
    assert score(metric, ["yes", " no\n", "maybe", "Yes"], ["yes", "no", "no", "yes"]) == 0.5


@pytest.mark.parametrize(("metric", "value"), [("f1", (1 + 0.5 + 0) / 3), ("rouge_l", (1 + 0.5 + 0) / 3)])
def test_graded_metrics_are_averaged_over_the_pairs(metric: str, value: float):
    predictions, references = ["red box", "red box", "lamp"], ["red box", "red lamp", "box"]
    assert score(metric, predictions, references) == pytest.approx(value)


@given(st.sampled_from(["accuracy", "exact_match", "f1", "rouge_l"]), st.lists(st.text(max_size=15), min_size=1))
def test_every_metric_is_between_0_and_1(metric, predictions):
    assert 0 <= score(metric, predictions, predictions[::-1]) <= 1


@given(st.text(max_size=15), st.text(max_size=15))
def test_graded_metrics_do_not_tell_prediction_and_reference_apart(first, second):
    assert token_f1(first, second) == pytest.approx(token_f1(second, first))
    assert rouge_l(first, second) == pytest.approx(rouge_l(second, first))


@pytest.mark.parametrize(("predictions", "references"), [([], []), (["one"], ["one", "two"])])
def test_nothing_to_compare_is_a_mistake_of_the_caller(predictions: list[str], references: list[str]):
    with pytest.raises(AssertionError):
        score("f1", predictions, references)
