"""The number of shots to serve: the smallest that is not worse than the best, and never a useless one."""

import numpy as np

from manyicl_core.contract.evidence import WarningCode
from manyicl_core.evaluation.recommendation import MeasuredShots, recommend_k
from manyicl_core.evaluation.statistics import Items


def shots(k: int, right: int, *warnings: WarningCode, draws: int = 1, of: int = 40) -> MeasuredShots:
    """A model that gives the first ``right`` of ``of`` queries the right answer."""
    scores = np.repeat((np.arange(of) < right).astype(float)[:, None], draws, axis=1)
    items = Items("accuracy", tuple(range(of)), scores, ("",) * of, (("",) * draws,) * of)
    return MeasuredShots(k, (items,), frozenset(warnings))


def test_the_smallest_k_that_is_not_significantly_worse_is_recommended():
    assert recommend_k([shots(0, 10), shots(4, 36), shots(16, 38)]) == (
        4,
        "its 0.900 is not significantly worse than the best, 0.950 at k=16",
    )
    assert recommend_k([shots(0, 10), shots(4, 38)]) == (
        4,
        "its 0.950 is the best, and every smaller k is significantly worse",
    )


def test_of_equally_good_ones_the_smallest_is_recommended():
    assert recommend_k([shots(0, 20), shots(4, 20)]) == (0, "its 0.500 is the best")


def test_a_k_without_demonstrations_is_compared_with_every_draw():
    assert recommend_k([shots(0, 10), shots(4, 36, draws=3)])[0] == 4
    assert recommend_k([shots(0, 35), shots(4, 36, draws=3)])[0] == 0


def test_a_k_with_a_warning_stands_back():
    k, reason = recommend_k([shots(0, 30, "answers_one_label_only"), shots(4, 20), shots(16, 20)])
    assert k == 4
    assert reason.endswith("left out: k=0 (answers_one_label_only)")
    k, reason = recommend_k([shots(0, 30, "no_better_than_most_frequent_answer"), shots(4, 20)])
    assert (k, reason.split(";")[0]) == (4, "the only k without a warning")


def test_where_the_model_is_useless_at_every_k_none_is_recommended():
    k, reason = recommend_k([shots(0, 30, "answers_one_label_only"), shots(4, 35, "below_most_frequent_answer")])
    assert k is None
    assert reason.startswith("at every k measured, the model is below always giving the most frequent answer")


def test_where_every_k_has_a_warning_the_reason_says_so():
    soft: WarningCode = "no_better_than_most_frequent_answer"
    k, reason = recommend_k([shots(0, 5, soft), shots(4, 30, soft), shots(16, 35, "below_most_frequent_answer")])
    assert (k, reason) == (
        4,
        "its 0.750 is the best, and every smaller k is significantly worse; "
        "but every k has a warning: no_better_than_most_frequent_answer",
    )


def test_a_single_k_is_recommended_as_such():
    assert recommend_k([shots(4, 30)]) == (4, "the only k measured")
