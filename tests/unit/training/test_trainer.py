"""The loop from the data stream to the saved file."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.base_models.load import load_base_model
from manyicl_core.contract.progress import CheckpointSaved, Message, Started, StepMetrics, Trained
from manyicl_core.contract.train_spec import LoraSpec
from manyicl_core.method.plan import plan_training
from manyicl_core.training.adapters import add_adapter
from manyicl_core.training.trainer import TrainingDiverged, learning_rate, make_stream, train
from tests.unit.training.specs import PUBLIC_ID, adapter_bytes, make_spec, steps_of


@given(st.integers(1, 60), st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([1e-4, 2.0]))
def test_the_learning_rate_rises_to_its_peak_and_falls_towards_zero(steps, warmup_fraction, peak):
    spec = make_spec(Path("model"), learning_rate=peak, warmup_fraction=warmup_fraction)
    rates = [learning_rate(spec, step, steps) for step in range(steps)]
    top = max(1, round(warmup_fraction * steps)) - 1
    assert rates[top] == pytest.approx(peak)
    assert max(rates) == pytest.approx(peak)
    assert min(rates) > 0
    assert rates[: top + 1] == pytest.approx([peak * (step + 1) / (top + 1) for step in range(top + 1)])
    falling = rates[top + 1 :]
    assert falling == sorted(falling, reverse=True)


def test_the_learning_rate_is_half_way_down_in_the_middle_and_almost_zero_at_the_end():
    spec = make_spec(Path("model"), learning_rate=1.0, warmup_fraction=0.1)
    assert learning_rate(spec, 55, 100) == pytest.approx(0.5)
    assert learning_rate(spec, 99, 100) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert learning_rate(spec, 99, 100) < 0.001


def test_a_run_says_what_it_will_do_and_does_it(tiny_model: Path, tmp_path: Path):
    spec = make_spec(tiny_model)
    plan = plan_training(make_stream(spec), "many_icl", 2, None, 1100)
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
    assert [checkpoint.step for checkpoint in checkpoints] == [2, 4], "none at the end: there the adapter is"
    last = messages[-1]
    assert isinstance(last, Trained)
    assert Path(last.folder) == tmp_path / "adapter"
    assert last.peak_memory_bytes > 1_000_000


def test_training_lowers_the_loss(tiny_model: Path, tmp_path: Path):
    steps = steps_of(make_spec(tiny_model, token_budget=2000), tmp_path)
    assert sum(step.loss for step in steps[-3:]) < 0.7 * sum(step.loss for step in steps[:3])
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


class PlainStep:
    """The first optimizer step, computed over all logits of all sequences at once."""

    def __init__(self, tiny_model: Path, batch_size: int) -> None:
        spec = make_spec(tiny_model)
        torch.manual_seed(spec.seed)
        model = add_adapter(
            load_base_model(tiny_model, torch.device("cpu"), torch.float32), PUBLIC_ID, LoraSpec(rank=4, alpha=8)
        )
        self.answer_losses: list[list[float]] = []
        losses = []
        for number in range(batch_size):
            sequence = make_stream(spec).nth(number)
            tokens = torch.from_numpy(sequence.tokens)
            each = F.cross_entropy(model(input_ids=tokens.unsqueeze(0)).logits[0, :-1], tokens[1:], reduction="none")
            answers = [each[start - 1 : end - 1] for start, end in sequence.answer_spans]
            self.answer_losses.append([float(answer.detach().mean()) for answer in answers])
            losses += answers
        mean = torch.cat(losses).mean()
        mean.backward()
        self.loss = float(mean.detach())
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        self.gradient_norm = float(torch.cat([gradient.flatten() for gradient in gradients]).norm())

    def of_positions(self, start: int, end: int) -> Iterator[float]:
        for losses in self.answer_losses:
            yield from losses[start:end]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_target_token_of_a_step_weighs_the_same(tiny_model: Path, tmp_path: Path, batch_size: int):
    first = steps_of(make_spec(tiny_model, batch_size=batch_size, token_budget=1), tmp_path)[0]
    plain = PlainStep(tiny_model, batch_size)
    assert first.loss == pytest.approx(plain.loss, rel=1e-5)
    assert first.gradient_norm == pytest.approx(plain.gradient_norm, rel=1e-4)


def test_the_loss_by_answer_is_the_mean_over_positions_in_doubling_buckets(tiny_model: Path, tmp_path: Path):
    first = steps_of(make_spec(tiny_model, batch_size=3, token_budget=1), tmp_path)[0]
    plain = PlainStep(tiny_model, 3)
    expected = {start: list(plain.of_positions(start, end)) for start, end in ((0, 1), (1, 2), (2, 4), (4, 8))}
    assert max(map(len, plain.answer_losses)) in range(5, 9), "the sequences reach into the last bucket only"
    assert first.loss_by_answer == pytest.approx({start: sum(found) / len(found) for start, found in expected.items()})
    assert set(first.accuracy_by_answer) == set(expected)


def test_the_same_job_gives_the_same_bytes_and_another_seed_others(tiny_model: Path, tmp_path: Path):
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        steps_of(make_spec(tiny_model, seed=seed, token_budget=400), tmp_path / name)
    assert adapter_bytes(tmp_path / "first") == adapter_bytes(tmp_path / "again")
    assert adapter_bytes(tmp_path / "first") != adapter_bytes(tmp_path / "other")
