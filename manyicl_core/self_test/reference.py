"""What transformers itself computes, with its plain attention: what ours is held against."""

from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import PreTrainedModel

EAGER = "eager"
"""Not torch's own kernel: with it some models lose the bounds of their attention's scores."""

GREEDY_TOKENS = 5


@dataclass(frozen=True, slots=True)
class Step:
    """Of one training step: the mean loss of the targets, and the adapter's gradients by name."""

    loss: float
    gradients: dict[str, torch.Tensor]


@torch.inference_mode()
def reference_logits(model: PreTrainedModel, documents: torch.Tensor) -> torch.Tensor:
    """Next-token logits, float32 ``[documents, tokens, vocabulary]``, of int64 ``[documents, tokens]``."""
    logits: torch.Tensor = model(input_ids=documents, use_cache=False).logits
    return logits.float()


def reference_step(model: PeftModel, documents: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, Step]:
    """Logits as above, and a step on the tokens at ``targets``, bool ``[documents, tokens]``, never the first ones."""
    logits = model(input_ids=documents, use_cache=False).logits.float()
    chosen = targets[:, 1:]
    loss = torch.nn.functional.cross_entropy(logits[:, :-1][chosen], documents[:, 1:][chosen])
    return logits.detach(), step_of(model, loss)


def step_of(model: torch.nn.Module, loss: torch.Tensor) -> Step:
    """What a loss asks for; the model keeps no gradients."""
    loss.backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in trained.items()}
    model.zero_grad(set_to_none=True)
    return Step(loss.item(), gradients)


@torch.inference_mode()
def reference_answer(model: PeftModel, prompt: torch.Tensor) -> list[int]:
    """The most likely tokens after int64 ``[tokens]``, one after the other."""
    answer: list[int] = []
    tokens, cache = prompt[None], None
    while len(answer) < GREEDY_TOKENS:
        output = model(input_ids=tokens, past_key_values=cache, use_cache=True)
        tokens, cache = output.logits[:, -1:].argmax(-1), output.past_key_values
        answer.append(int(tokens))
    return answer
