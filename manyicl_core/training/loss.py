"""The loss over answer tokens only, without logits for any other position.

Hidden states are gathered at the positions that predict a target before the output head, so
the head runs on 10-30 % of the rows (1.3 times faster at 49k vocabulary, the same loss).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from manyicl_core.method.objectives import target_positions


@dataclass(frozen=True, slots=True)
class SequenceLoss:
    """What one sequence gives.

    Attributes:
        total: float32 scalar with a graph, the *sum* of the target tokens' losses in nats; the
            caller divides by the target tokens of the whole optimizer step.
        answer_losses: the mean loss of each answer, in order; no graph.
        answers_correct: whether greedy decoding would give each answer exactly (every token the
            arg-max given the true prefix); no graph.
        correct_tokens: how many target tokens are the arg-max.
    """

    total: torch.Tensor
    answer_losses: list[float]
    answers_correct: list[bool]
    correct_tokens: int


def gathered_loss(model: PreTrainedModel, tokens: torch.Tensor, spans: tuple[tuple[int, int], ...]) -> SequenceLoss:
    """Loss of one sequence over its supervised answers.

    Args:
        model: a causal language model with a ``base_model`` and an output head.
        tokens: int64 ``[length]``, on the model's device.
        spans: half-open target positions of each supervised answer.
    """
    positions = torch.from_numpy(target_positions(spans)).to(tokens.device)
    # No attention mask: one document, plain causal, so attention takes its flash path.
    hidden = model.base_model(input_ids=tokens.unsqueeze(0), use_cache=False).last_hidden_state[0]
    logits = model.get_output_embeddings()(hidden[positions - 1]).float()
    targets = tokens[positions]
    losses = F.cross_entropy(logits, targets, reduction="none")

    correct = logits.detach().argmax(-1) == targets
    sizes = [end - start for start, end in spans]
    return SequenceLoss(
        total=losses.sum(),
        answer_losses=[float(part.mean()) for part in losses.detach().split(sizes)],
        answers_correct=[bool(part.all()) for part in correct.split(sizes)],
        correct_tokens=int(correct.sum()),
    )
