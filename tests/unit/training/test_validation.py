"""The loss on examples that are not trained on, and what it decides."""

from pathlib import Path

import pytest
import torch

from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.contract.progress import CheckpointSaved, Message, StepMetrics, Trained
from manyicl_core.contract.train_spec import LoraSpec, TrainSpec, ValidationSpec
from manyicl_core.method.objectives import Normalization, Objective
from manyicl_core.training.distribution import Distribution, Layout
from manyicl_core.training.loss import AnswerLoss
from manyicl_core.training.trainer import train
from manyicl_core.training.validation import validate, validation_sequences
from manyicl_core.training.weights import load_weights, trainable_model
from tests.unit.training import plain
from tests.unit.training.specs import CONTRARY, TALK, checkpoint_of, files_of, make_spec, stopping_early

CPU = torch.device("cpu")
ALONE = Distribution(Layout(), CPU)


def messages_of(
    spec: TrainSpec, folder: Path, checkpoint: Path | None = None, best: Path | None = None
) -> list[Message]:
    folder.mkdir(exist_ok=True)
    return list(train(spec, folder, checkpoint, best))


def losses_of(messages: list[Message]) -> dict[int, float]:
    return {
        message.step: message.valid_loss
        for message in messages
        if isinstance(message, StepMetrics) and message.valid_loss is not None
    }


def end_of(messages: list[Message]) -> Trained:
    last = messages[-1]
    assert isinstance(last, Trained)
    return last


@pytest.mark.parametrize("normalization", ["token", "answer"])
@pytest.mark.parametrize("objective", ["many_icl", "few_shot", "zero_shot"])
def test_the_validation_loss_is_the_formulas_over_its_sequences(
    tiny_model: Path, objective: Objective, normalization: Normalization
):
    validation = ValidationSpec(tasks=[CONTRARY, TALK], sequences=3, every=1)
    spec = make_spec(tiny_model, objective=objective, normalization=normalization, validation=validation)
    sequences = validation_sequences(spec, validation, load_encoder(tiny_model))
    assert len(sequences) == 3
    torch.manual_seed(0)
    model = trainable_model(spec, CPU, torch.float32)
    scores = validate(spec, AnswerLoss(model), sequences, ALONE)
    wanted = float(plain.step_loss(model, sequences, objective, normalization).detach())
    assert scores.mean_loss == pytest.approx(wanted, rel=1e-5)
    assert 0 <= scores.token_accuracy < 1


def test_at_most_one_epoch_of_the_validation_examples_is_scored(tiny_model: Path):
    validation = ValidationSpec(tasks=[CONTRARY], sequences=1000, every=1)
    spec = make_spec(tiny_model, validation=validation)
    sequences = validation_sequences(spec, validation, load_encoder(tiny_model))
    assert len(sequences) < 10
    assert {index for sequence in sequences for index in sequence.examples} == set(range(9))


def test_dropout_is_off_while_validating_and_on_again_afterwards(tiny_model: Path):
    validation = ValidationSpec(tasks=[CONTRARY], sequences=2, every=1)
    spec = make_spec(tiny_model, validation=validation, lora=LoraSpec(rank=4, alpha=8, dropout=0.5))
    torch.manual_seed(0)
    model = trainable_model(spec, CPU, torch.float32)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    loss = AnswerLoss(model)
    loss.train()
    sequences = validation_sequences(spec, validation, load_encoder(tiny_model))
    first, second = (validate(spec, loss, sequences, ALONE).mean_loss for _ in range(2))
    assert first == second
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_is_measured_every_so_many_steps_and_at_the_last(tiny_model: Path, tmp_path: Path):
    spec = make_spec(tiny_model, validation=ValidationSpec(tasks=[CONTRARY], sequences=1, every=4))
    messages = messages_of(spec, tmp_path)
    steps = end_of(messages).step
    assert steps % 4 != 0
    assert list(losses_of(messages)) == [*range(4, steps, 4), steps]


def test_measuring_does_not_change_what_is_trained(tiny_model: Path, tmp_path: Path):
    lora = LoraSpec(rank=4, alpha=8, dropout=0.2)
    validation = ValidationSpec(tasks=[CONTRARY], sequences=2, every=1)
    for name, measured in (("with", validation), ("without", None)):
        messages_of(make_spec(tiny_model, lora=lora, validation=measured), tmp_path / name)
    assert files_of(tmp_path / "with" / "weights") == files_of(tmp_path / "without" / "weights")


def test_every_best_measurement_is_kept_in_a_checkpoint(tiny_model: Path, tmp_path: Path):
    messages = messages_of(stopping_early(tiny_model, checkpoint_every=1000), tmp_path)
    losses = losses_of(messages)
    bests = [step for step in losses if losses[step] < min([losses[s] for s in losses if s < step], default=1e9)]
    saved = [message for message in messages if isinstance(message, CheckpointSaved)]
    assert [(message.step, message.valid_loss, message.best) for message in saved] == [
        (step, losses[step], True) for step in bests
    ]


def test_a_run_out_of_patience_ends_with_its_best_weights(tiny_model: Path, tmp_path: Path):
    spec = stopping_early(tiny_model)
    messages = messages_of(spec, tmp_path)
    losses = losses_of(messages)
    best = min(losses, key=lambda step: losses[step])
    assert len(losses) == best + 2, "two measurements of patience"
    end = end_of(messages)
    assert end.step == best > 1
    weights = files_of(tmp_path / "weights")
    kept = files_of(checkpoint_of(tmp_path, best))
    assert {name: kept[name] for name in weights} == weights

    model = trainable_model(spec, CPU, torch.float32)
    load_weights(model, Path(end.folder))
    assert spec.validation
    sequences = validation_sequences(spec, spec.validation, load_encoder(tiny_model))
    assert validate(spec, AnswerLoss(model), sequences, ALONE).mean_loss == losses[best]


def test_with_patience_a_run_that_is_not_stopped_ends_with_its_best_weights_too(tiny_model: Path, tmp_path: Path):
    patient = stopping_early(tiny_model).model_copy(
        update={"validation": ValidationSpec(tasks=[CONTRARY], sequences=3, every=1, patience=1000)}
    )
    messages = messages_of(patient.model_copy(update={"token_budget": 3000}), tmp_path)
    losses = losses_of(messages)
    end = end_of(messages)
    assert end.step == min(losses, key=lambda step: losses[step]) < max(losses)
    assert files_of(tmp_path / "weights").items() <= files_of(checkpoint_of(tmp_path, end.step)).items()


def test_without_patience_a_run_ends_with_its_last_weights(tiny_model: Path, tmp_path: Path):
    validation = ValidationSpec(tasks=[CONTRARY], sequences=3, every=1)
    messages = messages_of(stopping_early(tiny_model, validation=validation, token_budget=3000), tmp_path)
    losses = losses_of(messages)
    end = end_of(messages)
    assert end.step == max(losses) > min(losses, key=lambda step: losses[step])
    best = files_of(checkpoint_of(tmp_path, min(losses, key=lambda step: losses[step])))
    assert best["adapter_model.safetensors"] != files_of(tmp_path / "weights")["adapter_model.safetensors"]


def test_a_resumed_run_takes_the_best_weights_from_the_checkpoint_that_is_handed_over(tiny_model: Path, tmp_path: Path):
    spec = stopping_early(tiny_model, checkpoint_every=1)
    end = end_of(messages_of(spec, tmp_path / "whole"))
    last = checkpoint_of(tmp_path / "whole", end.step + 1)
    resumed = messages_of(spec, tmp_path / "resumed", last, checkpoint_of(tmp_path / "whole", end.step))
    assert end_of(resumed).step == end.step
    assert files_of(tmp_path / "resumed" / "weights") == files_of(tmp_path / "whole" / "weights")


def test_the_checkpoint_that_is_gone_on_from_may_itself_be_the_best(tiny_model: Path, tmp_path: Path):
    spec = stopping_early(tiny_model, checkpoint_every=1)
    end = end_of(messages_of(spec, tmp_path / "whole"))
    resumed = messages_of(spec, tmp_path / "resumed", checkpoint_of(tmp_path / "whole", end.step))
    assert end_of(resumed).step == end.step
    assert files_of(tmp_path / "resumed" / "weights") == files_of(tmp_path / "whole" / "weights")
