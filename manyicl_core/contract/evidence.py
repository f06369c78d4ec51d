"""What a metric alone does not tell: what the simplest answer scores, and which answers were given. No torch."""

from typing import Literal

from pydantic import BaseModel

WarningCode = Literal[
    "answers_one_label_only",
    "answers_one_text_only",
    "below_most_frequent_answer",
    "no_better_than_most_frequent_answer",
    "one_right_answer_only",
]


class ResultWarning(BaseModel):
    """Why a figure is not to be trusted, for programs and in words."""

    code: WarningCode
    message: str


class Baseline(BaseModel):
    """What it scores to give every query one answer: the right answer of most queries.

    Attributes:
        answer: of several that are equally frequent the first; at most 200 characters of it.
        share: of the queries whose right answer it is.
        value: the task's metric.
        macro_f1: None where answers are no labels.
        difference: the model's metric minus ``value``.
        low: lower end of the difference's 95 % paired-bootstrap interval; ``high``: upper end.
    """

    answer: str
    share: float
    value: float
    macro_f1: float | None
    difference: float
    low: float
    high: float


class LabelFigures(BaseModel):
    """How well one label is told from the others.

    Attributes:
        support: the queries whose right answer it is.
        given: how many get it as their answer, a mean over the draws.
        recall: of its queries, those that get it; None without such a query.
        precision: of the queries that get it, its own; None where none gets it.
    """

    label: str
    support: int
    given: float
    recall: float | None
    precision: float | None


class Confusion(BaseModel):
    """How many queries of each right label got which answer, a mean over the draws.

    ``counts`` has a row a right label and a column a given one, both in the order of ``labels``,
    and one column more: answers that are no label.
    """

    labels: list[str]
    counts: list[list[float]]


class Evidence(BaseModel):
    """What stands behind one result.

    Attributes:
        distinct_answers: how many different answers were given, as the metric tells them apart.
        macro_f1: the mean F1 of the labels; it and ``labels`` are None where answers are no labels.
        confusion: None where there are no labels, or more than a hundred.
    """

    baseline: Baseline
    distinct_answers: int
    macro_f1: float | None
    labels: list[LabelFigures] | None
    confusion: Confusion | None
    warnings: list[ResultWarning]
