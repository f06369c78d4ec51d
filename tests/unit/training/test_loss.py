"""The loss over answer tokens equals the one that is computed the plain way, over all logits."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel

from manyicl_core.base_models.load import load_base_model
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.contract.train_spec import LoraSpec
from manyicl_core.method.sequences import EncodedTask
from manyicl_core.training.adapters import add_adapter
from manyicl_core.training.loss import gathered_loss
from tests.unit.training.specs import MOODS, PUBLIC_ID

Spans = tuple[tuple[int, int], ...]


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


def moods_sequence(tiny_model: Path) -> tuple[torch.Tensor, Spans]:
    sequence = EncodedTask(MOODS, load_encoder(tiny_model)).assemble((0, 4, 2, 7))
    return torch.from_numpy(sequence.tokens), sequence.answer_spans


def plain_losses(model: PeftModel, tokens: torch.Tensor, spans: Spans) -> torch.Tensor:
    """The loss of every position but the first, 0 where no answer is: all logits, labels -100 elsewhere."""
    labels = torch.full_like(tokens, -100)
    for start, end in spans:
        labels[start:end] = tokens[start:end]
    logits = model(input_ids=tokens.unsqueeze(0)).logits[0]
    return F.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="none")


def gradients(model: PeftModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


@pytest.mark.parametrize("answers", [slice(None), slice(-1, None), slice(1, 3)])
def test_value_and_gradients_are_those_of_all_logits(model: PeftModel, tiny_model: Path, answers: slice):
    tokens, all_spans = moods_sequence(tiny_model)
    spans = all_spans[answers]
    result = gathered_loss(model.get_base_model(), tokens, spans)
    plain = plain_losses(model, tokens, spans)
    torch.testing.assert_close(result.total, plain.sum(), rtol=1e-5, atol=1e-5)
    ours, theirs = gradients(model, result.total), gradients(model, plain.sum())
    assert len(ours) == len(theirs) == len([name for name, _ in model.named_parameters() if "lora_" in name])
    for name, gradient in ours.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-5, msg=name)


def test_an_answers_loss_is_the_mean_over_its_tokens(model: PeftModel, tiny_model: Path):
    tokens, spans = moods_sequence(tiny_model)
    plain = plain_losses(model, tokens, spans).detach()
    result = gathered_loss(model.get_base_model(), tokens, spans)
    assert result.answer_losses == pytest.approx([float(plain[start - 1 : end - 1].mean()) for start, end in spans])


def test_an_answer_is_correct_where_greedy_decoding_gives_all_of_it(model: PeftModel, tiny_model: Path):
    encoder = load_encoder(tiny_model)
    tokens = [*encoder.query("first")]
    spans = []
    for _ in range(2):
        start = len(tokens)
        for _ in range(3):
            tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
        spans.append((start, len(tokens)))
        tokens += encoder.query("next")
    right = gathered_loss(model.get_base_model(), torch.tensor(tokens), tuple(spans))
    assert (right.answers_correct, right.correct_tokens) == ([True, True], 6)

    last = spans[1][1] - 1
    tokens[last] = (tokens[last] + 1) % 300
    wrong = gathered_loss(model.get_base_model(), torch.tensor(tokens), tuple(spans))
    assert (wrong.answers_correct, wrong.correct_tokens) == ([True, False], 5)
