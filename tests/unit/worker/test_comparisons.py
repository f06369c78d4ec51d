"""Models beside each other: what a difference is worth when the better model is useless."""

import json
from pathlib import Path

import pytest

from manyicl_core.evaluation.evidence import evidence_of
from manyicl_core.evaluation.metrics import item_score
from manyicl_core.evaluation.statistics import read_items
from manyicl_core.objects import open_store
from manyicl_core.store.evaluations.plan import EvaluatedWeights
from manyicl_core.store.evaluations.schemas import ResultObject, result_object
from manyicl_core.store.tables import EvaluationResult
from worker.comparisons import Found, compare_models

GOLD = ["low"] * 34 + ["high"] * 4
LOW, RIGHT, WRONG = ["low"] * 38, GOLD, ["high"] * 34 + ["low"] * 4
MODELS = [EvaluatedWeights(name="base", weights_sha256=None), EvaluatedWeights(name="tuned", weights_sha256="0")]


class Evaluated:
    """Results as an evaluation records them, from answers to the queries of ``GOLD``."""

    def __init__(self, folder: Path) -> None:
        self.store = open_store(folder.as_uri())
        self.rows: list[EvaluationResult] = []
        self._folder = folder

    def add(self, model: str, task: str, k: int, given: list[str], *, role: str = "train", old: bool = False) -> None:
        lines = [
            {
                "line": line,
                "draw": 0,
                "prediction": text,
                "reference": gold,
                "score": item_score("macro_f1", text, gold),
            }
            for line, (text, gold) in enumerate(zip(given, GOLD, strict=True))
        ]
        path = self._folder / "items.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        key = f"evaluations/e/{len(self.rows)}.jsonl"
        self.store.put(key, path)
        items = read_items("macro_f1", path.read_text().splitlines())
        self.rows.append(
            EvaluationResult(
                model=model,
                task=task,
                family="",
                k=k,
                role=role,
                shots=k,
                metric="macro_f1",
                value=0.5,
                low=0.4,
                high=0.6,
                queries=38,
                draws=1,
                seconds=1.0,
                seconds_per_query=0.1,
                items_key=key,
                evidence=None if old else evidence_of(items, ["low", "high"]).model_dump(),
            )
        )

    def compared(self) -> Found:
        return compare_models(self.store, MODELS, self.rows)


@pytest.fixture
def evaluated(tmp_path: Path) -> Evaluated:
    return Evaluated(tmp_path)


@pytest.mark.parametrize(
    ("base", "tuned", "verdict"),
    [
        (WRONG, LOW, "not_above_baseline"),  # significantly better, and useless
        (LOW, WRONG, "not_above_baseline"),
        (LOW, RIGHT, "better"),
        (WRONG, RIGHT, "better"),
        (RIGHT, LOW, "worse"),
        (RIGHT, RIGHT, "no_difference"),
        (LOW, LOW, "not_above_baseline"),
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_a_useless_model_is_not_called_better(
    evaluated: Evaluated, base: list[str], tuned: list[str], verdict: str, old: bool
):
    evaluated.add("base", "level", 4, base, old=old)
    evaluated.add("tuned", "level", 4, tuned)
    found = evaluated.compared()
    assert [(row.task, row.verdict) for row in found.comparisons] == [("level", verdict), (None, verdict)]
    warned = {"base": base is not RIGHT, "tuned": tuned is not RIGHT}
    for row in found.comparisons:
        assert {warning.model for warning in row.warnings} == {name for name, is_warned in warned.items() if is_warned}


def test_a_gain_that_is_significant_still_says_so_in_its_figures(evaluated: Evaluated):
    evaluated.add("base", "level", 4, WRONG)
    evaluated.add("tuned", "level", 4, LOW)
    row = evaluated.compared().comparisons[0]
    assert row.low > 0 and row.p_value < 0.05
    assert row.verdict == "not_above_baseline"
    assert (row.warnings[0].model, row.warnings[0].code) == ("tuned", "answers_one_label_only")


def test_means_tell_baselines_and_which_tasks_have_warnings(evaluated: Evaluated):
    for task, given in {"useless": LOW, "good": RIGHT, "worse": WRONG}.items():
        evaluated.add("base", task, 0, LOW)
        evaluated.add("tuned", task, 0, given)
    found = evaluated.compared()
    base, tuned = found.means
    always_low = 68 / 72 / 2
    assert tuned.baseline == base.baseline == pytest.approx(always_low)
    assert tuned.value == pytest.approx((always_low + 1 + 0) / 3)
    assert (base.tasks_below_baseline, tuned.tasks_below_baseline) == (0, 1)
    assert tuned.warned_tasks == {
        "answers_one_label_only": ["useless"],
        "no_better_than_most_frequent_answer": ["useless"],
        "below_most_frequent_answer": ["worse"],
    }
    assert [warning.code for warning in base.warnings] == [
        "answers_one_label_only",
        "no_better_than_most_frequent_answer",
    ]
    assert base.warnings[1].message.startswith("mean of 3 tasks: 0.472 is no better than the 0.472 of always giving")


def test_a_k_is_recommended_for_every_task_and_for_all(evaluated: Evaluated):
    almost = ["low"] * 33 + ["high"] * 5
    for k, good, useless in ((0, LOW, LOW), (4, almost, WRONG), (16, RIGHT, LOW)):
        for model in ("base", "tuned"):
            evaluated.add(model, "good", k, LOW if model == "base" else good)
            evaluated.add(model, "useless", k, useless, role="heldout")
    found = [(row.model, row.task, row.tasks, row.k) for row in evaluated.compared().recommendations]
    assert found == [
        ("base", "good", 1, None),
        ("base", "useless", 1, None),
        ("base", None, 2, None),
        ("tuned", "good", 1, 4),
        ("tuned", "useless", 1, None),
        ("tuned", None, 2, 16),
    ]
    reasons = [row.reason for row in evaluated.compared().recommendations]
    assert reasons[3].startswith("its 0.937 is not significantly worse than the best, 1.000 at k=16; left out: k=0")
    assert reasons[5].endswith("at this k 1 of 2 tasks have a warning")


def test_a_row_from_before_there_was_evidence_is_shown(evaluated: Evaluated):
    evaluated.add("base", "level", 4, LOW, old=True)
    evaluated.add("base", "level", 0, LOW)
    old, new = (result_object(row) for row in evaluated.rows)
    assert isinstance(old, ResultObject)
    assert (old.baseline, old.labels, old.confusion, old.warnings) == (None, None, None, [])
    assert new.baseline is not None and new.labels is not None
    assert new.warnings[0].code == "answers_one_label_only"
