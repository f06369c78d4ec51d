"""The loop from the data stream to the saved file."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from manyicl_core.contract.progress import CheckpointSaved, Message, Started, StepMetrics, Trained
from manyicl_core.contract.train_spec import TrainSpec
from manyicl_core.method.objectives import Normalization, Objective
from manyicl_core.method.plan import plan_training
from manyicl_core.training.schedule import learning_rate
from manyicl_core.training.trainer import TrainingDiverged, make_stream, train
from manyicl_core.training.weights import trainable_model
from tests.unit.random_adapter import save_random_adapter
from tests.unit.training import plain
from tests.unit.training.specs import MOODS, SILENT, TALK, adapter_bytes, checkpoint_of, make_spec, steps_of

OBJECTIVES: tuple[Objective, ...] = ("many_icl", "few_shot", "zero_shot")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def start(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter whose two matrices both have a gradient."""
    return save_random_adapter(tiny_model, tmp_path_factory.mktemp("start"), 3)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_says_what_it_will_do_and_does_it(tiny_model: Path, tmp_path: Path, objective: Objective):
    spec = make_spec(tiny_model, objective=objective)
    plan = plan_training(make_stream(spec), objective, 2, None, 1100)
    messages: list[Message] = list(train(spec, tmp_path, None))
    assert messages[0] == Started(
        step=0,
        steps=plan.steps,
        tokens=plan.tokens,
        answers=plan.answers,
        target_tokens=plan.target_tokens,
        dtype="float32",
    )
    steps = [message for message in messages if isinstance(message, StepMetrics)]
    assert [step.step for step in steps] == list(range(1, plan.steps + 1))
    assert sum(step.tokens for step in steps) == plan.tokens
    assert sum(step.answers for step in steps) == plan.answers
    assert [step.learning_rate for step in steps] == [
        learning_rate(spec, step, plan.steps) for step in range(plan.steps)
    ]
    checkpoints = [message for message in messages if isinstance(message, CheckpointSaved)]
    assert [checkpoint.step for checkpoint in checkpoints] == list(range(2, plan.steps, 2)), "none at the end"
    assert not any(checkpoint.best for checkpoint in checkpoints)
    last = messages[-1]
    assert isinstance(last, Trained)
    assert last.step == plan.steps
    assert Path(last.folder) == tmp_path / "weights"
    assert last.peak_memory_bytes > 1_000_000


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_lowers_the_loss(tiny_model: Path, tmp_path: Path, objective: Objective):
    steps = steps_of(make_spec(tiny_model, objective=objective, token_budget=2000), tmp_path)
    assert sum(step.loss for step in steps[-3:]) < 0.75 * sum(step.loss for step in steps[:3])
    assert steps[-1].token_accuracy > steps[0].token_accuracy


def test_a_loss_that_is_no_number_ends_the_run_with_what_to_do(tiny_model: Path, tmp_path: Path):
    messages = train(make_spec(tiny_model, learning_rate=1e30), tmp_path, None)
    with pytest.raises(TrainingDiverged, match="step 2 is not finite; lower learning_rate_multiplier"):
        list(messages)


def test_an_epochs_run_ends_with_a_smaller_step(tiny_model: Path, tmp_path: Path):
    spec = make_spec(tiny_model, token_budget=None, n_epochs=1, batch_size=3)
    lengths = [len(make_stream(spec).nth(number).tokens) for number in range(make_stream(spec).epoch_length)]
    assert len(lengths) == 4
    assert [step.tokens for step in steps_of(spec, tmp_path)] == [sum(lengths[:3]), lengths[3]]


def first_step(
    tiny_model: Path, start: Path, folder: Path, **changes: Any
) -> tuple[TrainSpec, StepMetrics, dict[str, torch.Tensor]]:
    """The first step's metrics and gradients, dropout off, from an adapter whose gradients are all there.

    The gradients are read off AdamW's first moment, which starts as a tenth of them.
    """
    fields: dict[str, Any] = {
        "tasks": [MOODS, TALK],
        "batch_size": 3,
        "start_folder": str(start),
        "max_gradient_norm": 1e9,
        "checkpoint_every": 1,
        "token_budget": None,
        "n_epochs": 1,
    }
    spec = make_spec(tiny_model, **fields | changes)
    first = steps_of(spec, folder)[0]
    moments = load_file(checkpoint_of(folder, 1) / "optimizer.safetensors")
    suffix = ".exp_avg"
    return (
        spec,
        first,
        {name.removesuffix(suffix): value * 10 for name, value in moments.items() if name.endswith(suffix)},
    )


def plain_step(spec: TrainSpec) -> tuple[float, dict[str, torch.Tensor]]:
    """The same step by the plain formula."""
    model = trainable_model(spec, CPU, torch.float32)
    stream = make_stream(spec)
    loss = plain.step_loss(model, [stream.nth(n) for n in range(3)], spec.objective, spec.normalization)
    loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return float(loss.detach()), {name: gradient for name, gradient in found.items() if gradient is not None}


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3, 5])
@pytest.mark.parametrize("normalization", ["token", "answer"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_steps_loss_and_gradients_are_those_of_the_formula_whatever_runs_at_once(
    tiny_model: Path,
    start: Path,
    tmp_path: Path,
    objective: Objective,
    normalization: Normalization,
    micro_batch_size: int,
):
    spec, first, gradients = first_step(
        tiny_model,
        start,
        tmp_path,
        objective=objective,
        normalization=normalization,
        micro_batch_size=micro_batch_size,
    )
    loss, wanted = plain_step(spec)
    assert first.loss == pytest.approx(loss, rel=1e-5)
    norm = float(torch.cat([gradient.flatten() for gradient in wanted.values()]).norm())
    assert first.gradient_norm == pytest.approx(norm, rel=1e-4)
    assert len(gradients) == len(wanted) == 28, "two matrices for each of seven linear layers in two blocks"
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-5 * norm, msg=name)


def test_the_two_normalisations_weigh_long_answers_differently(tiny_model: Path, start: Path, tmp_path: Path):
    by_token = first_step(tiny_model, start, tmp_path / "token")[1]
    by_answer = first_step(tiny_model, start, tmp_path / "answer", normalization="answer")[1]
    assert abs(by_token.loss - by_answer.loss) > 0.01
    assert (by_token.loss_by_answer, by_token.answers) == (by_answer.loss_by_answer, by_answer.answers)


def test_a_steps_gradient_is_cut_to_the_norm_asked_for(tiny_model: Path, start: Path, tmp_path: Path):
    _, whole, gradients = first_step(tiny_model, start, tmp_path / "whole")
    _, first, cut = first_step(tiny_model, start, tmp_path / "cut", max_gradient_norm=0.01)
    assert first.gradient_norm == whole.gradient_norm > 1, "reported as it was"
    for name, gradient in cut.items():
        torch.testing.assert_close(gradient, gradients[name] * 0.01 / whole.gradient_norm, rtol=1e-3, atol=1e-6)


def test_the_loss_by_answer_is_the_mean_over_positions_in_doubling_buckets(tiny_model: Path, tmp_path: Path):
    spec = make_spec(tiny_model, batch_size=3, token_budget=1)
    first = steps_of(spec, tmp_path)[0]
    torch.manual_seed(spec.seed)
    model = trainable_model(spec, CPU, torch.float32)
    stream = make_stream(spec)
    losses = [
        [float(loss.detach().mean()) for loss in plain.answer_losses(model, stream.nth(number), "many_icl")]
        for number in range(3)
    ]
    assert max(map(len, losses)) in range(5, 9), "the sequences reach into the last bucket only"
    buckets = {
        start: [loss for each in losses for loss in each[start:end]] for start, end in ((0, 1), (1, 2), (2, 4), (4, 8))
    }
    assert first.loss_by_answer == pytest.approx({start: sum(found) / len(found) for start, found in buckets.items()})
    assert set(first.accuracy_by_answer) == set(buckets)


def test_the_same_job_gives_the_same_bytes_and_another_seed_others(tiny_model: Path, tmp_path: Path):
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        steps_of(make_spec(tiny_model, seed=seed, token_budget=400), tmp_path / name)
    assert adapter_bytes(tmp_path / "first") == adapter_bytes(tmp_path / "again")
    assert adapter_bytes(tmp_path / "first") != adapter_bytes(tmp_path / "other")


def test_many_icl_and_few_shot_see_the_same_tokens_in_the_same_steps(tiny_model: Path, tmp_path: Path):
    many, few = (
        steps_of(make_spec(tiny_model, objective=objective), tmp_path / objective)
        for objective in ("many_icl", "few_shot")
    )
    assert [step.tokens for step in many] == [step.tokens for step in few]
    assert all(step.answers == 2 for step in few)
    assert all(step.answers > 4 for step in many)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_without_targets_moves_nothing_and_a_run_goes_on_from_it(
    tiny_model: Path, tmp_path: Path, objective: Objective
):
    spec = make_spec(tiny_model, tasks=[SILENT], objective=objective, token_budget=400, checkpoint_every=1)
    whole = steps_of(spec, tmp_path / "whole")
    assert [(step.loss, step.gradient_norm, step.answers) for step in whole] == [(0.0, 0.0, 0)] * len(whole)
    assert steps_of(spec, tmp_path / "resumed", checkpoint_of(tmp_path / "whole", 1)) == whole[1:]
    torch.manual_seed(spec.seed)
    fresh = trainable_model(spec, CPU, torch.float32)
    saved = load_file(tmp_path / "whole" / "weights" / "adapter_model.safetensors")
    for name, parameter in fresh.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter, saved[name.replace(".default", "")])


def test_answers_of_no_weight_beside_others_change_neither_loss_nor_count(tiny_model: Path, tmp_path: Path):
    steps = steps_of(make_spec(tiny_model, tasks=[SILENT, MOODS], batch_size=1), tmp_path)
    silent = [step for step in steps if step.answers == 0]
    assert 0 < len(silent) < len(steps)
    assert all(step.loss == 0 and math.isfinite(step.gradient_norm) for step in silent)
    assert all(step.loss > 0 for step in steps if step.answers)


def test_a_run_starts_from_the_adapter_it_is_given(tiny_model: Path, start: Path, tmp_path: Path):
    spec = make_spec(tiny_model, start_folder=str(start), learning_rate=1e-30, token_budget=400)
    assert steps_of(spec, tmp_path)[0].step == 1
    given, kept = (
        load_file(start / "adapter_model.safetensors"),
        load_file(tmp_path / "weights" / "adapter_model.safetensors"),
    )
    assert given.keys() == kept.keys()
    assert all(torch.equal(given[name], kept[name]) for name in given)
    assert isinstance(trainable_model(spec, CPU, torch.float32), PeftModel)
