"""The loss over answer tokens equals the one that is computed the plain way, over all logits."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from manyicl_core.base_models.load import load_base_model
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.contract.train_spec import LoraSpec
from manyicl_core.method.objectives import Objective, stands_alone
from manyicl_core.method.sequences import Answer, EncodedTask, Sequence
from manyicl_core.training.batches import IGNORED, MicroBatch, micro_batch
from manyicl_core.training.loss import AnswerLoss
from manyicl_core.training.scores import Scores
from manyicl_core.training.weights import add_adapter
from tests.unit.training import plain
from tests.unit.training.specs import MOODS, PUBLIC_ID, TALK

OBJECTIVES: tuple[Objective, ...] = ("many_icl", "few_shot", "zero_shot")


@pytest.fixture
def model(tiny_model: Path) -> PeftModel:
    """The tiny model with an adapter whose two matrices both have a gradient."""
    torch.manual_seed(0)
    model = add_adapter(
        load_base_model(tiny_model, torch.device("cpu"), torch.float32), PUBLIC_ID, LoraSpec(rank=4, alpha=8)
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def sequences(tiny_model: Path, objective: Objective) -> list[Sequence]:
    """Sequences of unequal lengths, one of conversations with answers of no weight."""
    encoder = load_encoder(tiny_model)
    alone = stands_alone(objective)
    moods, talk = EncodedTask(MOODS, encoder), EncodedTask(TALK, encoder)
    return [moods.assemble((0, 4, 2, 7), alone), talk.assemble((1, 0, 4), alone), moods.assemble((3,), alone)]


def gradients(model: PeftModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_value_and_gradients_are_those_of_all_logits(model: PeftModel, tiny_model: Path, objective: Objective):
    found = sequences(tiny_model, objective)
    batch = micro_batch(found, objective, "token")
    losses, _ = AnswerLoss(model)(batch.tokens, batch.labels)
    wanted = torch.cat([loss for sequence in found for loss in plain.answer_losses(model, sequence, objective)])
    torch.testing.assert_close(losses, wanted, rtol=1e-4, atol=1e-5)
    ours, theirs = gradients(model, losses.sum()), gradients(model, wanted.sum())
    assert len(ours) == len(theirs) == len([name for name, _ in model.named_parameters() if "lora_" in name])
    for name, gradient in ours.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-3, atol=1e-4, msg=name)


def test_no_document_of_zero_shot_sees_another(model: PeftModel, tiny_model: Path):
    task = EncodedTask(MOODS, load_encoder(tiny_model))
    together = micro_batch([task.assemble((0, 4, 2), alone=True)], "zero_shot", "token")
    losses, _ = AnswerLoss(model)(together.tokens, together.labels)
    each = [micro_batch([task.assemble((index,))], "many_icl", "token") for index in (0, 4, 2)]
    alone = torch.cat([AnswerLoss(model)(one.tokens, one.labels)[0] for one in each])
    torch.testing.assert_close(losses, alone, rtol=1e-5, atol=1e-5)
    shown = micro_batch([task.assemble((0, 4, 2))], "many_icl", "token")
    assert not torch.allclose(AnswerLoss(model)(shown.tokens, shown.labels)[0], alone, atol=1e-2)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_micro_batch_holds_every_document_and_labels_what_comes_next(tiny_model: Path, objective: Objective):
    found = sequences(tiny_model, objective)
    batch = micro_batch(found, objective, "answer")
    assert len(batch.tokens) == (8 if objective == "zero_shot" else 3)
    assert batch.labels.shape == batch.tokens.shape
    rows, places = torch.nonzero(batch.labels != IGNORED, as_tuple=True)
    assert batch.labels[rows, places].tolist() == batch.tokens[rows, places + 1].tolist()
    answers = [answer for sequence in found for answer in plain.targets(objective, sequence)]
    assert batch.answers == tuple(answers)
    said = [
        token
        for sequence in found
        for answer in plain.targets(objective, sequence)
        for token in sequence.tokens[answer.start : answer.end].tolist()
    ]
    assert batch.labels[rows, places].tolist() == said
    assert len(batch.weights) == len(said)
    assert float(batch.weights.sum()) == pytest.approx(len(answers))


def answered(model: PeftModel, tiny_model: Path) -> tuple[list[int], tuple[Answer, ...]]:
    """Two answers of three tokens each, as greedy decoding gives them."""
    encoder = load_encoder(tiny_model)
    tokens = [*encoder.query("first")]
    answers = []
    for shot in range(2):
        start = len(tokens)
        for _ in range(3):
            tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
        answers.append(Answer(start, len(tokens), shot))
        tokens += encoder.query("next")
    return tokens, tuple(answers)


def scored(model: PeftModel, tokens: list[int], answers: tuple[Answer, ...]) -> tuple[Scores, torch.Tensor]:
    row = torch.tensor([tokens])
    labels = torch.full_like(row, IGNORED)
    for answer in answers:
        labels[0, answer.start - 1 : answer.end - 1] = row[0, answer.start : answer.end]
    batch = MicroBatch(row, labels, torch.ones(6), answers)
    losses, correct = AnswerLoss(model)(batch.tokens, batch.labels)
    scores = Scores()
    scores.add(batch, losses.detach(), correct)
    return scores, losses.detach()


def test_an_answer_is_correct_where_greedy_decoding_gives_all_of_it(model: PeftModel, tiny_model: Path):
    tokens, answers = answered(model, tiny_model)
    right, _ = scored(model, tokens, answers)
    assert (right.by_shot()[1], right.token_accuracy) == ({0: 1.0, 1: 1.0}, 1.0)

    last = answers[1].end - 1
    tokens[last] = (tokens[last] + 1) % 300
    wrong, _ = scored(model, tokens, answers)
    assert (wrong.by_shot()[1], wrong.correct) == ({0: 1.0, 1: 0.0}, 5)


def test_an_answers_loss_is_the_mean_over_its_tokens(model: PeftModel, tiny_model: Path):
    scores, losses = scored(model, *answered(model, tiny_model))
    assert scores.by_shot()[0] == pytest.approx({0: float(losses[:3].mean()), 1: float(losses[3:].mean())})
    assert scores.mean_loss == pytest.approx(float(losses.mean()))


def test_scores_of_nothing_are_zero_and_not_an_error():
    scores = Scores()
    assert (scores.mean_loss, scores.token_accuracy, scores.by_shot()) == (0.0, 0.0, ({}, {}))
