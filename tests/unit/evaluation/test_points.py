"""The metric against the number of shots, several models side by side."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from manyicl_core.base_models.load import load_base_model
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.contract.evaluation_spec import Point
from manyicl_core.contract.progress import EvaluationResult
from manyicl_core.evaluation import models as models_module
from manyicl_core.evaluation import points as points_module
from manyicl_core.evaluation.run import evaluate
from manyicl_core.evaluation.statistics import interval, read_items
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.method.contexts import draw_context
from manyicl_core.method.labels import LabelTree
from manyicl_core.method.tasks import Example, Task, Turn
from tests.unit.evaluation.specs import LETTERS, QUESTIONS, make_spec, with_queries
from tests.unit.inference.greedy import plain_greedy
from tests.unit.sample_tasks import task_of

pytestmark = pytest.mark.usefixtures("on_the_processor")

POINTS = [
    Point(model=model, task=task, k=k) for model in ("base", "tuned") for task in ("sums", "moods") for k in (0, 2)
]


def load_plain(folder: Path) -> PreTrainedModel:
    return load_base_model(folder, torch.device("cpu"), torch.float32)


class Evaluation:
    """Runs evaluations of the tiny model, its adapter and its changed copy in one folder."""

    def __init__(self, tiny_model: Path, adapter: Path, whole: Path, folder: Path) -> None:
        self.folder = folder
        self._base = tiny_model
        self._models = {"base": None, "whole": whole, "tuned": adapter}

    def results(self, points: list[Point], **changes: Any) -> list[EvaluationResult]:
        """Results without what differs from run to run."""
        found = evaluate(make_spec(self._base, self._models, points=points, **changes), self.folder)
        return [self._timeless(result) for result in found if isinstance(result, EvaluationResult)]

    def _timeless(self, result: EvaluationResult) -> EvaluationResult:
        assert 0 < result.seconds_per_query <= result.seconds
        return result.model_copy(update={"seconds": 0.0, "seconds_per_query": 0.0})

    def items(self, result: EvaluationResult) -> list[dict[str, Any]]:
        lines = (self.folder / result.items_file).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def evaluation(tiny_model: Path, adapter: Path, whole_model: Path, tmp_path: Path) -> Evaluation:
    return Evaluation(tiny_model, adapter, whole_model, tmp_path)


def test_every_point_has_a_result_with_its_interval(evaluation: Evaluation):
    found = evaluation.results(POINTS)
    assert [(result.model, result.task, result.k) for result in found] == [
        (point.model, point.task, point.k) for point in POINTS
    ]
    for result in found:
        assert 0 <= result.low <= result.value <= result.high <= 1
        assert result.shots == result.k
        # Without demonstrations every draw is the same.
        assert result.draws == (2 if result.k else 1)
    sums, moods = found[0], found[-1]
    assert (sums.metric, sums.role, sums.family, sums.queries) == ("f1", "heldout", "", 2)
    assert (moods.metric, moods.role, moods.family, moods.queries) == ("accuracy", "train", "letters", 3)


def test_the_same_evaluation_gives_the_same_numbers_point_by_point(evaluation: Evaluation):
    def numbers(results: list[EvaluationResult]) -> list[EvaluationResult]:
        return [result.model_copy(update={"items_file": ""}) for result in results]

    together = numbers(evaluation.results(POINTS))
    assert together == numbers([evaluation.results([point])[0] for point in POINTS])


def test_only_the_first_queries_are_asked(evaluation: Evaluation):
    [result] = evaluation.results([Point(model="base", task="moods", k=1)], queries=2, draws=3)
    assert (result.queries, result.draws) == (2, 3)
    assert [(item["line"], item["draw"]) for item in evaluation.items(result)] == [
        (line, draw) for draw in range(3) for line in (1, 2)
    ]


def test_more_shots_than_there_are_demonstrations_are_all_of_them(evaluation: Evaluation):
    [result] = evaluation.results([Point(model="base", task="sums", k=100)])
    assert (result.k, result.shots) == (100, 6)


def test_the_figures_are_those_of_the_items(evaluation: Evaluation):
    for result in evaluation.results(POINTS):
        lines = (evaluation.folder / result.items_file).read_text(encoding="utf-8").splitlines()
        found = interval([read_items(result.metric, lines)], seed=5)
        assert (result.value, result.low, result.high) == (found.value, found.low, found.high)


def plain_answers(tiny_model: Path, model: PreTrainedModel | PeftModel, task: Task, k: int, draw: int) -> list[str]:
    """What ``model`` answers to the questions after ``k`` demonstrations, computed the plain way."""
    encoder = load_encoder(tiny_model)
    labels = LabelTree(encoder.answer(label) for label in task.definition.labels or [])
    context = draw_context(encoder, task.definition, task.demonstrations, k, 1000, 5, draw)
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    prompts = [[*context.tokens, *encoder.query(question)] for question in QUESTIONS]
    written = [plain_greedy(model, prompt, 100, {encoder.stop}, labels) for prompt in prompts]
    return [tokenizer.decode(tokens).strip() for tokens in written]


def test_answers_are_those_of_the_plain_models_at_every_k_and_draw(
    evaluation: Evaluation, tiny_model: Path, adapter: Path, whole_model: Path
):
    task = with_queries(LETTERS, [(question, "a") for question in QUESTIONS], metric="accuracy")
    plain = {
        "base": load_plain(tiny_model),
        "tuned": PeftModel.from_pretrained(load_plain(tiny_model), str(adapter)).eval(),
        "whole": load_plain(whole_model),
    }
    # The whole model in between: base and adapter are as before after it.
    points = [Point(model=model, task="letters", k=k) for k in (3, 1) for model in ("base", "whole", "tuned")]
    results = evaluation.results(points, tasks=[task])
    assert sorted((point.model, point.k) for point in points) == sorted((result.model, result.k) for result in results)
    answered = {}
    for result in results:
        expected = [plain_answers(tiny_model, plain[result.model], task, result.k, draw) for draw in (0, 1)]
        found = [item["prediction"] for item in evaluation.items(result)]
        assert found == [*expected[0], *expected[1]]
        scores = [item["score"] for item in evaluation.items(result)]
        assert scores == [float(prediction == "a") for prediction in found]
        answered[result.model, result.k] = tuple(found)
    for k in (1, 3):
        assert len({answers for (_, shots), answers in answered.items() if shots == k}) == 3, "the models differ"


def test_an_answer_longer_than_any_demonstrated_one_is_not_cut(evaluation: Evaluation, tiny_model: Path):
    labels = ["a", *(f"{letter} and so on and on" for letter in "cdefgh")]
    task = task_of([(f"number {number}", "a") for number in range(4)], "letters", labels=labels)
    gold = plain_answers(tiny_model, load_plain(tiny_model), task, 3, 0)
    assert sum(answer != "a" for answer in gold) > len(gold) / 2
    task = with_queries(task, list(zip(QUESTIONS, gold, strict=True)), metric="exact_match")
    [result] = evaluation.results([Point(model="base", task="letters", k=3)], tasks=[task], draws=1)
    assert result.value == 1


def test_a_query_of_several_turns_stands_after_its_earlier_exchanges(evaluation: Evaluation, tiny_model: Path):
    encoder = load_encoder(tiny_model)
    earlier = [Turn(input="hello", output="two\nlines")]
    query = Example(input="and now?", output="a", line=1, earlier=earlier)
    task = LETTERS.model_copy(update={"queries": [query]})
    [result] = evaluation.results([Point(model="base", task="letters", k=0)], tasks=[task])
    labels = LabelTree(encoder.answer(label) for label in "abcdef")
    prompt = [*encoder.instruction(""), *encoder.query("and now?", earlier)]
    expected = plain_greedy(load_plain(tiny_model), prompt, 100, {encoder.stop}, labels)
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    assert [item["prediction"] for item in evaluation.items(result)] == [tokenizer.decode(expected).strip()]


def test_an_answer_of_several_lines_is_compared_as_its_text(
    evaluation: Evaluation, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    written = load_encoder(tiny_model).answer("first\nsecond")[:-1]
    monkeypatch.setattr(points_module, "answers", lambda *_: [written])
    task = with_queries(task_of([("x", "y")], "lines"), [("which?", "first\nsecond")])
    [result] = evaluation.results([Point(model="base", task="lines", k=1)], tasks=[task])
    assert result.value == 1


def test_no_demonstration_runs_through_a_model_twice(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch):
    compiled: list[tuple[int, int]] = []
    compile_prefix = points_module.compile_prefix

    def counted(model, tokens, start):
        compiled.append((len(start.tokens), len(tokens)))
        return compile_prefix(model, tokens, start)

    monkeypatch.setattr(points_module, "compile_prefix", counted)
    evaluation.results([Point(model="base", task="moods", k=k) for k in (4, 1, 2)], draws=1)
    assert len(compiled) == 3
    assert compiled[0][0] == 0
    for (_, end), (start, longer) in pairwise(compiled):
        assert start == end < longer


def test_every_models_weights_are_loaded_once(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch):
    loaded: list[str] = []
    for owner, name in ((models_module, "load_base_model"), (LanguageModel, "attach")):
        original = getattr(owner, name)

        def counted(*arguments, original=original, name=name):
            loaded.append(name)
            return original(*arguments)

        monkeypatch.setattr(owner, name, counted)
    points = [Point(model=model, task=task, k=0) for task in ("sums", "moods") for model in ("whole", "tuned", "base")]
    results = evaluation.results(points)
    assert len(results) == 6
    assert sorted(loaded) == ["attach", "load_base_model", "load_base_model"]
