"""What stands behind a figure, against what is counted by hand and what scikit-learn says."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score

from manyicl_core.contract.evidence import Evidence
from manyicl_core.evaluation.evidence import always, answer_labels, evidence_of, most_frequent_answer
from manyicl_core.evaluation.metrics import item_score
from manyicl_core.evaluation.statistics import Items, compare, value
from manyicl_core.method.tasks import Metric
from tests.unit.evaluation.specs import with_queries
from tests.unit.sample_tasks import task_of


def items_of(metric: str, references: list[str], *draws: list[str]) -> Items:
    """Items from the answers of each draw."""
    predictions = tuple(zip(*draws, strict=True))
    scores = [
        [item_score(metric, text, gold) for text in row] for row, gold in zip(predictions, references, strict=True)
    ]
    return Items(metric, tuple(range(len(references))), np.array(scores), tuple(references), predictions)


def codes(evidence: Evidence) -> list[str]:
    return [warning.code for warning in evidence.warnings]


IMBALANCED = ["low"] * 34 + ["high"] * 4


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_a_model_that_answers_one_label_only_is_called_so(metric: str):
    found = evidence_of(items_of(metric, IMBALANCED, ["low"] * 38), ["low", "high"])
    assert codes(found) == ["answers_one_label_only", "no_better_than_most_frequent_answer"]
    assert "gives all 38 queries the same answer: 'low'" in found.warnings[0].message
    assert (found.baseline.answer, found.baseline.share, found.distinct_answers) == ("low", 34 / 38, 1)
    assert found.macro_f1 == found.baseline.macro_f1 == pytest.approx((68 / 72) / 2)
    assert found.baseline.value == pytest.approx(34 / 38 if metric == "accuracy" else (68 / 72) / 2)
    assert found.labels is not None and found.confusion is not None
    assert [(row.label, row.support, row.given, row.recall) for row in found.labels] == [
        ("low", 34, 38, 1),
        ("high", 4, 0, 0),
    ]
    assert [row.precision for row in found.labels] == [pytest.approx(34 / 38), None]
    assert found.confusion.counts == [[34, 0, 0], [4, 0, 0]]


def test_a_model_below_the_most_frequent_answer_is_called_so():
    references = ["en"] * 34 + ["fr"] * 6
    given = ["en"] * 23 + ["fr"] * 11 + ["fr"] * 6
    found = evidence_of(items_of("accuracy", references, given), ["en", "fr"])
    assert codes(found) == ["below_most_frequent_answer"]
    assert (
        found.warnings[0].message == "accuracy 0.725 is below the 0.850 of always giving the most frequent answer, 'en'"
    )
    assert found.baseline.difference == pytest.approx(-0.125)
    assert found.baseline.low < found.baseline.difference < found.baseline.high


def test_a_model_clearly_above_the_most_frequent_answer_has_no_warning():
    found = evidence_of(items_of("macro_f1", ["a", "b"] * 20, [*["a", "b"] * 19, "b", "a"]), ["a", "b"])
    assert codes(found) == []
    assert found.baseline.low > 0


def test_a_model_that_may_be_above_by_chance_is_called_so():
    given = ["low"] * 34 + ["high"] + ["low"] * 3
    found = evidence_of(items_of("macro_f1", IMBALANCED, given), ["low", "high"])
    assert codes(found) == ["no_better_than_most_frequent_answer"]
    assert found.baseline.difference > 0 == found.baseline.low


def test_the_figures_of_labels_are_means_over_the_draws():
    references = ["a", "a", "b", "c"]
    draws = [["a", "b", "b", "?"], ["a", "a", "", "?"]]
    found = evidence_of(items_of("accuracy", references, *draws), ["a", "b", "c", "d"])
    assert found.labels is not None and found.confusion is not None
    assert found.confusion.labels == [row.label for row in found.labels] == ["a", "b", "c", "d"]
    assert found.confusion.counts == [
        [1.5, 0.5, 0, 0, 0],
        [0, 0.5, 0, 0, 0.5],  # the last column: answers that are no label
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0],
    ]
    assert [(row.support, row.given, row.recall, row.precision) for row in found.labels] == [
        (2, 1.5, 0.75, 1.0),
        (1, 1.0, 0.5, 0.5),
        (1, 0.0, 0.0, None),
        (0, 0.0, None, None),
    ]
    assert found.macro_f1 == pytest.approx(f1_score(references * 2, [*draws[0], *draws[1]], average="macro"))
    assert found.distinct_answers == 4


def test_the_confusion_of_labels_is_scikit_learns():
    rng = np.random.default_rng(1)
    labels = ["x", "y", "z"]
    references, given = ([labels[place] for place in rng.integers(3, size=50)] for _ in range(2))
    found = evidence_of(items_of("macro_f1", references, given), labels)
    assert found.confusion is not None
    assert (
        np.array(found.confusion.counts)[:, :3].tolist() == confusion_matrix(references, given, labels=labels).tolist()
    )


def test_an_off_label_answer_to_everything_is_no_label():
    for text in ("", "I think it is low"):
        found = evidence_of(items_of("accuracy", IMBALANCED, [text] * 38), ["low", "high"])
        assert codes(found) == ["answers_one_text_only", "below_most_frequent_answer"]
        assert found.confusion is not None
        assert found.confusion.counts == [[0, 0, 34], [0, 0, 4]]


def test_one_right_answer_tells_no_models_apart():
    right = evidence_of(items_of("accuracy", ["low"] * 9, ["low"] * 9), ["low", "high"])
    assert codes(right) == ["one_right_answer_only", "no_better_than_most_frequent_answer"]
    assert right.baseline.value == 1
    wrong = evidence_of(items_of("accuracy", ["low"] * 9, ["high"] * 9), ["low", "high"])
    assert codes(wrong) == ["answers_one_label_only", "one_right_answer_only", "below_most_frequent_answer"]


@pytest.mark.parametrize("given", ["low", "high", ""])
def test_one_query_says_nothing(given: str):
    found = evidence_of(items_of("macro_f1", ["low"], [given]), ["low", "high"])
    assert "one_right_answer_only" in codes(found)
    assert "answers_one_label_only" not in codes(found)
    assert found.baseline.value == 1


def test_a_context_of_every_draw_that_answers_one_label_only_is_useless():
    found = evidence_of(items_of("accuracy", ["a", "b"], ["a", "a"], ["b", "b"]), ["a", "b"])
    assert codes(found)[0] == "answers_one_label_only"
    assert found.warnings[0].message.endswith("'a', 'b'")


def test_of_equally_frequent_answers_the_first_is_the_baseline():
    items = items_of("accuracy", ["b", "a", "a", "b", "c"], ["a"] * 5)
    assert most_frequent_answer(items) == ("b", 2)


def test_the_baseline_of_every_metric_is_that_of_the_metric():
    numbers = items_of("numeric", ["$7", "8", "7.0 km", "9"], ["7", "8", "7", "9"])
    assert most_frequent_answer(numbers) == ("$7", 2)
    assert evidence_of(numbers, None).baseline.value == 0.5
    words = items_of("f1", ["the red box", "red box", "a lamp"], ["red"] * 3)
    assert most_frequent_answer(words) == ("the red box", 2)
    assert evidence_of(words, None).baseline.value == pytest.approx(2 / 3)
    texts = items_of("rouge_l", ["one two", "one three", "four"], ["one two", "one three", "four"])
    found = evidence_of(texts, None)
    assert found.baseline.value == pytest.approx((1 + 0.5 + 0) / 3)
    assert (found.labels, found.confusion, found.macro_f1, found.baseline.macro_f1) == (None, None, None, None)
    assert found.distinct_answers == 3


def test_a_generating_model_that_repeats_itself_is_called_so():
    found = evidence_of(items_of("rouge_l", ["a cat sat", "a dog ran", "it rains"], ["a a a"] * 3), None)
    assert codes(found)[0] == "answers_one_text_only"


def test_labels_that_look_the_same_are_one():
    references = ["caf\u00e9", "cafe\u0301", "tea"]
    found = evidence_of(items_of("accuracy", references, ["cafe\u0301", "caf\u00e9", "tea"]), ["caf\u00e9", "tea"])
    assert found.distinct_answers == 2
    assert found.baseline.share == 2 / 3
    assert found.confusion is not None
    assert found.confusion.counts == [[2, 0, 0], [0, 1, 0]]


def test_always_answering_is_compared_on_the_same_draws():
    items = items_of("accuracy", ["a", "b", "a"], ["a", "b", "a"], ["b", "b", "a"])
    simplest = always(items, "a")
    assert value(simplest) == pytest.approx(2 / 3)
    assert compare([(simplest, items)]).difference.value == pytest.approx(5 / 6 - 2 / 3)


def test_texts_are_kept_as_the_database_holds_them():
    found = evidence_of(items_of("exact_match", ["x\x00" + "y" * 500, "z"], ["a", "b"]), None)
    assert "\x00" not in found.model_dump_json()
    assert len(found.baseline.answer) == 200


@pytest.mark.parametrize(
    ("metric", "outputs", "labels"),
    [
        ("exact_match", ["low", "high", "low", "high "], ["low", "high"]),
        ("exact_match", ["low", "high", "other", "high"], None),  # answers do not repeat enough
        ("accuracy", ["low", "high", "other", "high"], ["low", "high", "other"]),
        ("numeric", ["1", "2", "1", "2"], None),
        ("rouge_l", ["low", "high", "low", "high"], None),
    ],
)
def test_answers_that_repeat_are_labels(metric: str, outputs: list[str], labels: list[str] | None):
    task = with_queries(
        task_of([("x", text) for text in outputs[2:]], "t"), [("y", text) for text in outputs[:2]], metric=metric
    )
    assert answer_labels(task, task.queries) == labels


def test_a_closed_set_of_labels_is_the_labels():
    task = task_of([("x", "a")], "t", labels=["a", "b"])
    assert answer_labels(task, task.queries) == ["a", "b"]


LABELS = ["low", "high", "caf\u00e9", "7"]
ANSWERS = st.sampled_from([*LABELS, "", " low ", "cafe\u0301", "low, high", "none of them", "\x00"])


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(get_args(Metric)),
    st.lists(st.tuples(st.sampled_from(LABELS), ANSWERS, ANSWERS), min_size=1, max_size=8),
)
def test_whatever_is_answered_the_figures_fit_together(metric: Metric, rows: list[tuple[str, str, str]]):
    references, *draws = (list(column) for column in zip(*rows, strict=True))
    items = items_of(metric, references, *draws)
    found = evidence_of(items, LABELS)
    assert found.labels is not None and found.confusion is not None
    counts = np.array(found.confusion.counts)
    assert counts.sum(axis=1).tolist() == [figures.support for figures in found.labels]
    assert counts.sum() == len(rows)
    np.testing.assert_allclose(counts[:, :-1].sum(axis=0), [figures.given for figures in found.labels])
    assert found.baseline.value + found.baseline.difference == pytest.approx(value(items))
    # Who has no warning is above the baseline, and gives more than one answer.
    if not found.warnings:
        assert found.baseline.low > 0
        assert found.distinct_answers > 1
    if metric in ("accuracy", "exact_match", "macro_f1"):
        assert all(value(always(items, label)) <= found.baseline.value + 1e-12 for label in references)
