"""Exact match at every k from one pass is what generation gives at every k."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from manyicl_core.base_models.load import load_base_model
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.contract.evaluation_spec import CurvePoint
from manyicl_core.contract.progress import CurveResult
from manyicl_core.evaluation.curves import answered_exactly, measure_curve
from manyicl_core.evaluation.run import evaluate
from manyicl_core.inference.language_model import TunedModel
from manyicl_core.method.encoding import EncodedExample, Encoder
from manyicl_core.method.labels import LabelTree
from manyicl_core.method.sequences import Answer, EncodedTask, Sequence, StreamSettings
from manyicl_core.method.tasks import Example, Task, Turn
from tests.unit.evaluation.specs import TASKS, make_spec, with_queries
from tests.unit.inference.greedy import plain_greedy
from tests.unit.sample_tasks import task_of

LABELS = ["praise", "praise for the lamp", "complaint", "question"]


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> PreTrainedModel:
    return load_base_model(tiny_model, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    return load_encoder(tiny_model)


def mixed_sequence(
    plain: PreTrainedModel, encoder: Encoder, seed: int, labels: LabelTree | None
) -> tuple[Sequence, list[bool]]:
    """Random demonstrations, about half of whose answers are what the model writes in their place.

    Free answers have random lengths, and whatever ends them stands for the stop token, which the
    random model would hardly ever write.

    Returns:
        the sequence, and which answers generation writes exactly.
    """
    rng = np.random.default_rng(seed)
    ids = encoder.instruction("Sort the message.")
    answers: list[Answer] = []
    right: list[bool] = []
    for shot in range(10):
        ids += encoder.separator() if shot else []
        ids += encoder.query(f"message {rng.integers(100)} from {rng.integers(100)}")
        answer = plain_greedy(plain, ids, 50 if labels else int(rng.integers(1, 7)), {encoder.stop}, labels)
        if rng.random() < 0.5:
            if labels:
                answer = encoder.answer(str(rng.choice(LABELS)))
            else:
                answer[rng.integers(len(answer))] = int(rng.integers(3, 384))
        right.append(plain_greedy(plain, ids, len(answer), {encoder.stop}, labels) == answer)
        answers.append(Answer(len(ids), len(ids) + len(answer), shot))
        ids += answer
    return Sequence("sort", (), np.array(ids), tuple(answers), (0,)), right


@pytest.mark.parametrize("closed", [False, True], ids=["free", "labels"])
@pytest.mark.parametrize("seed", range(4))
def test_one_pass_tells_what_generation_writes(
    base: TunedModel, plain: PreTrainedModel, encoder: Encoder, seed: int, closed: bool
):
    labels = LabelTree(encoder.answer(label) for label in LABELS) if closed else None
    sequence, right = mixed_sequence(plain, encoder, seed, labels)
    assert set(right) == {False, True}
    assert answered_exactly(base, sequence, labels) == right


def generated_curve(
    model: PreTrainedModel, encoder: Encoder, task: Task, shots: int, draws: int, seed: int
) -> tuple[list[float], list[int]]:
    """The curve by generation: every query asked after the ones before it in its sequence."""
    definition = task.definition
    labels = LabelTree(encoder.answer(label) for label in definition.labels) if definition.labels else None
    pool = EncodedTask(task.model_copy(update={"demonstrations": task.queries}), encoder)
    hits: list[list[bool]] = [[] for _ in range(shots + 1)]
    for draw in range(draws):
        for chosen in orders(pool, shots + 1, draw, seed):
            shown: list[EncodedExample] = []
            for k, index in enumerate(chosen):
                example = encoder.example(task.queries[index])
                prompt = [*encoder.context(definition.instruction, shown), *example.prompt]
                written = plain_greedy(model, prompt, len(example.answer), {encoder.stop}, labels)
                hits[k].append(tuple(written) == example.answer)
                shown.append(example)
    return [sum(row) / len(row) for row in hits if row], [len(row) for row in hits if row]


def orders(pool: EncodedTask, size: int, draw: int, seed: int) -> list[tuple[int, ...]]:
    settings = StreamSettings(max_demonstrations=size, max_sequence_tokens=2048)
    return pool.layout(seed, draw, 0, settings)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_curve_is_that_of_generation(base: TunedModel, plain: PreTrainedModel, encoder: Encoder, seed: int):
    queries = [(f"letter {number}", LABELS[number % 4]) for number in range(10)]
    task = with_queries(task_of([("x", LABELS[0])], "sort", labels=LABELS, instruction="Sort."), queries)
    curve = measure_curve(base, "base", task, encoder, 3, 100, 3, seed)
    assert (curve.exact_match, curve.answers) == generated_curve(plain, encoder, task, 3, 3, seed)
    assert curve.answers == [9, 9, 9, 9]
    assert len(set(curve.exact_match)) > 1


def test_the_curve_ends_where_the_queries_do(base: TunedModel, encoder: Encoder):
    curve = measure_curve(base, "base", TASKS[0], encoder, 50, 2, 2, 0)
    assert curve.answers == [2, 2]


def test_of_a_conversation_the_last_answer_counts(base: TunedModel, encoder: Encoder):
    earlier = [Turn(input="one", output="two"), Turn(input="three", output="four")]
    queries = [Example(input=f"five {n}", output="six", line=n, earlier=earlier, trained=False) for n in (1, 2)]
    task = task_of([("x", "y")]).model_copy(update={"queries": queries})
    assert measure_curve(base, "base", task, encoder, 1, 10, 1, 0).answers == [1, 1]


@pytest.mark.usefixtures("on_the_processor")
def test_an_evaluation_measures_the_curves_it_is_asked_for(tiny_model: Path, adapter: Path, tmp_path: Path):
    curves = [CurvePoint(model="tuned", task="moods"), CurvePoint(model="base", task="sums")]
    spec = make_spec(tiny_model, {"base": None, "tuned": adapter}, curves=curves, curve_shots=2)
    found = list(evaluate(spec, tmp_path))
    assert all(isinstance(result, CurveResult) for result in found)
    assert [(result.model, result.task) for result in found] == [("base", "sums"), ("tuned", "moods")]
