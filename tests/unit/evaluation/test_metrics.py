"""Metrics against values that are calculated by hand."""

import unicodedata
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from manyicl_core.evaluation.metrics import item_score, numeric_match, rouge_l, score, token_f1
from manyicl_core.method.tasks import Metric


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


@pytest.mark.parametrize(
    ("prediction", "reference", "value"),
    [
        ("příliš žluťoučký kůň", "příliš žluťoučký kůň", 1.0),
        ("příliš malý kůň", "příliš žluťoučký kůň", 2 / 3),
        ("שלום לכל", "שלום עולם", 0.5),
        ("今天天气很好", "今天天气不好", 5 / 6),  # each character is a word
        ("きょうは雨", "きょうは晴れ", 8 / 11),
        ("สวัสดีครับ", "สวัสดีค่ะ", 8 / 13),  # marks go with their letter: ค is not ค่
        ("हिन्दी भाषा", "हिन्दी गीत", 0.5),  # marks do not cut a word
        ("हिन्दी", "हन्द", 0.0),
        ("비가 온다", "비가 오다", 0.5),
        ("Straße", "straße", 1.0),
        ("👍", "👍", 1.0),  # no words: equal, or not
        ("👍", "👎", 0.0),
        ("", "", 1.0),
    ],
)
def test_rouge_l_knows_the_words_of_every_script(prediction: str, reference: str, value: float):
    assert rouge_l(prediction, reference) == pytest.approx(value)


ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1).filter(
    lambda text: any(character.isalnum() for character in text)
)


@given(ASCII, ASCII)
def test_rouge_l_of_ascii_is_that_of_the_reference_implementation(prediction: str, reference: str):
    expected = RougeScorer(["rougeL"], use_stemmer=True).score(reference, prediction)["rougeL"].fmeasure
    assert rouge_l(prediction, reference) == expected


@pytest.mark.parametrize("metric", [metric for metric in get_args(Metric) if metric != "numeric"])
@pytest.mark.parametrize("text", ["café", "ﬁancé Ωhm", "Ångström", "한국어", "tiếng Việt", "İstanbul"])
def test_answers_that_look_the_same_are_the_same(metric: Metric, text: str):
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert composed != decomposed
    for prediction, reference in ((composed, decomposed), (decomposed, composed)):
        assert item_score(metric, prediction, reference) == 1
        # One label, not two.
        assert score(metric, [prediction, "other"], [reference, "other"]) == 1


@pytest.mark.parametrize(
    ("prediction", "reference", "same"),
    [
        ("36", "36", True),
        ("36.", "36", True),  # a full stop is no decimal point
        ("36.0", "36", True),
        ("The answer is 36 apples.", "36", True),
        ("12 + 24 = 36", "36", True),  # the last number counts
        ("36 = 12 + 24", "36", False),
        ("1,234", "1234", True),
        ("$1,234,567.50!", "1234567.5", True),
        ("1,2", "12", False),  # no thousands: two numbers
        ("12,345,67", "12345", False),
        ("-5", "-5", True),
        ("-5", "5", False),
        ("\u22125 degrees", "-5", True),  # a typographic minus
        ("-$5", "-5", True),
        ("+5", "5", True),
        ("3-5", "5", True),  # a range, no minus
        ("x = (4) - 5", "5", True),
        ("0.5", ".5", True),
        ("50%", "50", True),
        ("36kg", "36 kilograms", True),
        ("7", "8", False),
        ("none", "8", False),
        ("none", "none", False),  # no number is no match
        ("", "8", False),
    ],
)
def test_the_last_numbers_are_compared_by_value(prediction: str, reference: str, same: bool):
    assert numeric_match(prediction, reference) == float(same)


@given(st.integers(-(10**9), 10**9), st.sampled_from(["{:,}", "{}", "so: {}.", "{:,} km", "{}.00"]))
def test_a_number_is_read_in_every_way_of_writing_it(number: int, written: str):
    assert numeric_match(written.format(number), str(number)) == 1
    assert numeric_match(written.format(number), str(number + 1)) == 0


def test_macro_f1_weighs_labels_the_same_and_its_item_score_is_the_exact_match():
    predictions, references = ["yes", "yes", "yes", "yes "], ["yes", "yes", "yes", "no"]
    assert score("macro_f1", predictions, references) == pytest.approx((6 / 7 + 0) / 2)
    assert [item_score("macro_f1", *pair) for pair in zip(predictions, references, strict=True)] == [1, 1, 1, 0]


@pytest.mark.parametrize("metric", ["accuracy", "exact_match"])
def test_exact_metrics_count_equal_answers_without_outer_space(metric: str):
    assert score(metric, ["yes", " no\n", "maybe", "Yes"], ["yes", "no", "no", "yes"]) == 0.5


@pytest.mark.parametrize(("metric", "value"), [("f1", (1 + 0.5 + 0) / 3), ("rouge_l", (1 + 0.5 + 0) / 3)])
def test_graded_metrics_are_averaged_over_the_pairs(metric: str, value: float):
    predictions, references = ["red box", "red box", "lamp"], ["red box", "red lamp", "box"]
    assert score(metric, predictions, references) == pytest.approx(value)


@given(st.sampled_from(get_args(Metric)), st.lists(st.text(max_size=15), min_size=1))
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
