"""The metric against the number of shots, base beside tuned."""

from pathlib import Path
from typing import Any

import pytest
import torch

from manyicl_core.base_models.load import load_base_model
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.contract.evaluation_spec import EvaluationSpec, Point
from manyicl_core.contract.progress import EvaluationResult
from manyicl_core.evaluation import curves
from manyicl_core.evaluation.curves import evaluate
from manyicl_core.method.contexts import draw_context
from manyicl_core.method.tasks import Task
from tests.unit.inference.greedy import plain_greedy
from tests.unit.sample_tasks import examples_of
from tests.unit.training.specs import MOODS, SUMS, make_spec, steps_of

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
    """An adapter trained for a few steps."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("manyicl_core.training.trainer.compute_device", lambda: torch.device("cpu"))
        patch.setattr("manyicl_core.training.trainer.compute_dtype", lambda _: torch.float32)
        steps_of(make_spec(tiny_model), folder)
    return folder / "adapter"


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
    assert any(result.base != result.tuned for result in found)


def test_the_same_evaluation_gives_the_same_numbers_point_by_point(tiny_model: Path, adapter: Path):
    points = [Point(task="moods", k=2), Point(task="sums", k=2)]
    together = results(tiny_model, adapter, points=points)
    assert together == results(tiny_model, adapter, points=points)
    assert together == [results(tiny_model, adapter, points=[point])[0] for point in points]


def test_only_the_first_queries_are_asked(tiny_model: Path, adapter: Path):
    [result] = results(tiny_model, adapter, points=[Point(task="moods", k=1)], queries=2, draws=3)
    assert result.queries == 2 * 3


def test_free_answers_are_scored_as_the_plain_model_gives_them(tiny_model: Path, adapter: Path):
    """The queries' gold answers are the base model's own, so that its score is known: two of three are right."""
    encoder = load_encoder(tiny_model)
    plain = load_base_model(tiny_model, torch.device("cpu"), torch.float32)
    longest = max(len(encoder.answer(example.output)) for example in SUMS.demonstrations)
    context = draw_context(encoder, SUMS.definition, SUMS.demonstrations, 3, 1000, 5, 0)
    tokenizer = curves.Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    pairs = []
    for question in ("7 and 7", "8 and the number 8", "9 and 9"):
        written = plain_greedy(plain, [*context.tokens, *encoder.query(question)], 2 * longest, {encoder.stop})
        pairs.append((question, tokenizer.decode([token for token in written if token != encoder.stop])))
    pairs[1] = (pairs[1][0], "something else")
    task = with_queries(SUMS, pairs, metric="exact_match")
    [result] = results(tiny_model, adapter, tasks=[task], points=[Point(task="sums", k=3)], draws=1)
    assert result.base == pytest.approx(2 / 3)
