"""What stands behind a result: the simplest answer's score beside it, and which answers were given. No torch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from manyicl_core.contract.evidence import Baseline, Confusion, Evidence, LabelFigures, ResultWarning
from manyicl_core.evaluation.metrics import answer_key, item_score
from manyicl_core.evaluation.statistics import Comparison, Items, compare, value
from manyicl_core.method.equality import canonical
from manyicl_core.method.tasks import Example, Task

_MOST_LABELS = 1000
_LARGEST_CONFUSION = 100
_SHOWN_CHARACTERS = 200


def evidence_of(items: Items, labels: Sequence[str] | None, seed: int = 0) -> Evidence:
    """Everything about one model's answers to one task at one number of shots.

    Args:
        labels: what ``answer_labels`` gives for the task.
    """
    answer, count = most_frequent_answer(items)
    simplest = always(items, answer)
    comparison = compare([(simplest, items)], seed)
    baseline = Baseline(
        answer=_shown(answer),
        share=count / len(items.references),
        value=value(simplest),
        macro_f1=_macro_f1(simplest) if labels else None,
        difference=comparison.difference.value,
        low=comparison.difference.low,
        high=comparison.difference.high,
    )
    figures, confusion = _label_figures(items, labels) if labels else (None, None)
    return Evidence(
        baseline=baseline,
        distinct_answers=len({answer_key(items.metric, text) for row in items.predictions for text in row}),
        macro_f1=_macro_f1(items) if labels else None,
        labels=figures,
        confusion=confusion,
        warnings=[*_answer_warnings(items, labels), *baseline_warnings(items.metric, value(items), comparison, answer)],
    )


def answer_labels(task: Task, queries: Sequence[Example]) -> list[str] | None:
    """The labels among which a task's answers choose: its closed set, or else all its answers if they repeat.

    Answers repeat where each occurs twice in the mean; a metric for labels says that they are labels anyway.
    """
    definition = task.definition
    if definition.labels is not None:
        return definition.labels
    if definition.metric not in ("accuracy", "macro_f1", "exact_match"):
        return None
    outputs = [example.output.strip() for example in (*queries, *task.demonstrations)]
    distinct = list({canonical(output): output for output in outputs}.values())
    are_labels = definition.metric != "exact_match" or 2 * len(distinct) <= len(outputs)
    return distinct if are_labels and len(distinct) <= _MOST_LABELS else None


def most_frequent_answer(items: Items) -> tuple[str, int]:
    """The right answer of most queries, the first of several, and of how many."""
    keys = [answer_key(items.metric, text) for text in items.references]
    [(key, count)] = Counter(keys).most_common(1)
    return items.references[keys.index(key)], count


def always(items: Items, answer: str) -> Items:
    """The items of a model that gives one answer to every query with every draw."""
    draws = items.scores.shape[1]
    scores = [[item_score(items.metric, answer, reference)] * draws for reference in items.references]
    return replace(items, scores=np.array(scores), predictions=((answer,) * draws,) * len(items.references))


def baseline_warnings(metric: str, found: float, comparison: Comparison, answer: str | None) -> list[ResultWarning]:
    """What is to be said of a figure beside that of the most frequent answer.

    Args:
        comparison: the model against the baseline.
        answer: the most frequent answer; None for a mean over several tasks.
    """
    difference = comparison.difference
    simplest = found - difference.value
    always_answering = "always giving the most frequent answer" + ("" if answer is None else f", {_quoted(answer)},")
    if round(difference.value, 9) < 0:
        message = f"{metric} {found:.3f} is below the {simplest:.3f} of {always_answering.rstrip(',')}"
        return [ResultWarning(code="below_most_frequent_answer", message=message)]
    if difference.low <= 0:
        message = (
            f"{metric} {found:.3f} is no better than the {simplest:.3f} of {always_answering} as far as can be told: "
            f"the difference is in [{difference.low:+.3f}, {difference.high:+.3f}]"
        )
        return [ResultWarning(code="no_better_than_most_frequent_answer", message=message)]
    return []


def _answer_warnings(items: Items, labels: Sequence[str] | None) -> list[ResultWarning]:
    """One right answer makes a poor test; one given answer makes a useless model, unless it is that one."""
    count = len(items.references)
    right = {answer_key(items.metric, text) for text in items.references}
    by_draw = [{answer_key(items.metric, text) for text in draw} for draw in zip(*items.predictions, strict=True)]
    warnings = []
    if count > 1 and all(len(given) == 1 for given in by_draw) and any(given != right for given in by_draw):
        known = {canonical(label.strip()) for label in labels or ()}
        is_label = all(canonical(text.strip()) in known for text in items.predictions[0])
        answers = ", ".join(_quoted(text) for text in dict.fromkeys(items.predictions[0]))
        warnings.append(
            ResultWarning(
                code="answers_one_label_only" if is_label else "answers_one_text_only",
                message=f"gives all {count} queries the same answer: {answers}",
            )
        )
    if len(right) == 1:
        message = f"{_quoted(items.references[0])} is the right answer of every query: this cannot tell models apart"
        warnings.append(ResultWarning(code="one_right_answer_only", message=message))
    return warnings


def _label_figures(items: Items, labels: Sequence[str]) -> tuple[list[LabelFigures], Confusion | None]:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    places = {canonical(label.strip()): place for place, label in reversed(list(enumerate(labels)))}
    draws = items.scores.shape[1]
    other = len(labels)
    gold = np.repeat([places[canonical(text.strip())] for text in items.references], draws)
    given = [places.get(canonical(text.strip()), other) for row in items.predictions for text in row]
    precision, recall, _, support = precision_recall_fscore_support(
        gold, given, labels=range(other), zero_division=np.nan
    )
    times_given = np.bincount(given, minlength=other)
    shown = [_shown(label) for label in labels]
    figures = [
        LabelFigures(
            label=label,
            support=int(support[place]) // draws,
            given=float(times_given[place] / draws),
            recall=_known(recall[place]),
            precision=_known(precision[place]),
        )
        for place, label in enumerate(shown)
    ]
    if other > _LARGEST_CONFUSION:
        return figures, None
    counts = confusion_matrix(gold, given, labels=range(other + 1))[:other] / draws
    return figures, Confusion(labels=shown, counts=counts.tolist())


def _known(figure: float) -> float | None:
    return None if np.isnan(figure) else float(figure)


def _macro_f1(items: Items) -> float:
    return value(replace(items, metric="macro_f1"))


def _shown(text: str) -> str:
    """A text as a row of the database can hold it: not longer than needed, and without NUL."""
    text = text.strip().replace("\x00", "␀")
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _quoted(text: str) -> str:
    text = " ".join(_shown(text).split())
    return f"'{text}'" if len(text) <= 60 else f"'{text[:59]}…'"
