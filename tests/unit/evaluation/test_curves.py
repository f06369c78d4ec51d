"""The metric against the number of shots, base beside tuned."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer

from manyicl_core.base_models.load import load_base_model
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.contract.evaluation_spec import EvaluationSpec, Point
from manyicl_core.contract.progress import EvaluationResult
from manyicl_core.evaluation import curves
from manyicl_core.evaluation.curves import evaluate
from manyicl_core.method.contexts import draw_context
from manyicl_core.method.labels import LabelTree
from manyicl_core.method.tasks import Task
from tests.unit.inference.greedy import plain_greedy
from tests.unit.random_adapter import save_random_adapter
from tests.unit.sample_tasks import examples_of, task_of
from tests.unit.training.specs import MOODS, SUMS

torch.set_num_threads(1)


def with_queries(task: Task, pairs: list[tuple[str, str]], **changes: Any) -> Task:
    definition = task.definition.model_copy(update=changes)
    return task.model_copy(update={"definition": definition, "queries": examples_of(pairs)})


TASKS = [
    with_queries(
        MOODS,
        [("a letter is glad", "glad"), ("the letter that came today is sad", "sad"), ("it is calm", "calm")],
        metric="accuracy",
        family="letters",
    ),
    with_queries(SUMS, [("7 and 7", "14"), ("10 and 10", "20")], metric="f1", role="heldout"),
]


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "compute_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(curves, "compute_dtype", lambda _: torch.float32)


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_adapter(tiny_model, tmp_path_factory.mktemp("adapter"), 1)


def results(tiny_model: Path, adapter: Path, **changes: Any) -> list[EvaluationResult]:
    fields: dict[str, Any] = {
        "base_model_folder": str(tiny_model),
        "adapter_folder": str(adapter),
        "tasks": TASKS,
        "points": [Point(task=task, k=k) for task in ("sums", "moods") for k in (0, 2, 100)],
        "queries": 100,
        "draws": 2,
        "seed": 5,
        "threads": 1,
    }
    found = evaluate(EvaluationSpec(**fields | changes))
    return [result.model_copy(update={"seconds": 0.0}) for result in found]


def test_every_point_has_a_result_with_both_numbers(tiny_model: Path, adapter: Path):
    found = results(tiny_model, adapter)
    assert [(result.task, result.k) for result in found] == [
        (task, k) for task in ("sums", "moods") for k in (0, 2, 100)
    ]
    for result in found:
        assert 0 <= result.base <= 1
        assert 0 <= result.tuned <= 1
    sums, moods = found[0], found[-1]
    assert (sums.metric, sums.role, sums.family, sums.queries) == ("f1", "heldout", "", 2 * 2)
    assert (moods.metric, moods.role, moods.family, moods.queries) == ("accuracy", "train", "letters", 3 * 2)


def test_the_same_evaluation_gives_the_same_numbers_point_by_point(tiny_model: Path, adapter: Path):
    points = [Point(task="moods", k=2), Point(task="sums", k=2)]
    together = results(tiny_model, adapter, points=points)
    assert together == results(tiny_model, adapter, points=points)
    assert together == [results(tiny_model, adapter, points=[point])[0] for point in points]


def test_only_the_first_queries_are_asked(tiny_model: Path, adapter: Path):
    [result] = results(tiny_model, adapter, points=[Point(task="moods", k=1)], queries=2, draws=3)
    assert result.queries == 2 * 3


LETTERS = task_of([(f"the letter {letter}", letter) for letter in "abcdef"], "letters", labels=[*"abcdef"])
QUESTIONS = [f"is it {letter} or {other}?" for letter in "abcdef" for other in "xyz"]


class PlainAnswers:
    """What base and tuned model answer to the questions about letters, computed the plain way."""

    def __init__(self, tiny_model: Path, adapter: Path, task: Task, draw: int) -> None:
        self._encoder = load_encoder(tiny_model)
        self._labels = LabelTree(self._encoder.answer(label) for label in task.definition.labels or [])
        self._context = draw_context(self._encoder, task.definition, task.demonstrations, 3, 1000, 5, draw)
        self._tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
        device = torch.device("cpu")
        self.base = self._answers(load_base_model(tiny_model, device, torch.float32))
        tuned = PeftModel.from_pretrained(load_base_model(tiny_model, device, torch.float32), str(adapter))
        self.tuned = self._answers(tuned.eval())

    def _answers(self, model: torch.nn.Module) -> list[str]:
        prompts = [[*self._context.tokens, *self._encoder.query(question)] for question in QUESTIONS]
        written = [plain_greedy(model, prompt, 100, {self._encoder.stop}, self._labels) for prompt in prompts]
        return [self._tokenizer.decode(tokens).strip() for tokens in written]


def agreement(first: list[str], second: list[str]) -> float:
    return sum(one == other for one, other in zip(first, second, strict=True)) / len(first)


def test_scores_are_those_of_the_plain_models_over_all_draws(tiny_model: Path, adapter: Path):
    draws = [PlainAnswers(tiny_model, adapter, LETTERS, draw) for draw in (0, 1)]
    gold = [answer for pair in zip(draws[0].base[::2], draws[0].tuned[1::2], strict=True) for answer in pair]
    task = with_queries(LETTERS, list(zip(QUESTIONS, gold, strict=True)), metric="accuracy")
    [result] = results(tiny_model, adapter, tasks=[task], points=[Point(task="letters", k=3)])
    assert result.base == pytest.approx(sum(agreement(draw.base, gold) for draw in draws) / 2)
    assert result.tuned == pytest.approx(sum(agreement(draw.tuned, gold) for draw in draws) / 2)
    assert 0 < result.base != result.tuned > 0


def test_an_answer_longer_than_any_demonstrated_one_is_not_cut(tiny_model: Path, adapter: Path):
    labels = ["a", *(f"{letter} and so on and on" for letter in "cdefgh")]
    task = task_of([(f"number {number}", "a") for number in range(4)], "letters", labels=labels)
    gold = PlainAnswers(tiny_model, adapter, task, 0).base
    assert sum(answer != "a" for answer in gold) > len(gold) / 2
    task = with_queries(task, list(zip(QUESTIONS, gold, strict=True)), metric="exact_match")
    [result] = results(tiny_model, adapter, tasks=[task], points=[Point(task="letters", k=3)], draws=1)
    assert result.base == 1
