"""The loss of section 3 of the design, the plain way: a document at a time, over the logits of every position."""

import itertools
from collections.abc import Sequence as Many

import torch
import torch.nn.functional as F

from manyicl_core.method.objectives import Normalization, Objective
from manyicl_core.method.sequences import Answer, Sequence


def targets(objective: Objective, sequence: Sequence) -> list[Answer]:
    """The supervised answers, as the design's table says."""
    if objective == "few_shot":
        return [answer for answer in sequence.answers if answer.shot == len(sequence.examples) - 1]
    return list(sequence.answers)


def answer_losses(model: torch.nn.Module, sequence: Sequence, objective: Objective) -> list[torch.Tensor]:
    """The losses of the tokens of each supervised answer, each document run through the model alone."""
    losses: list[torch.Tensor] = []
    for start, end in itertools.pairwise([*sequence.documents, len(sequence.tokens)]):
        tokens = torch.from_numpy(sequence.tokens[start:end])
        logits = model(input_ids=tokens.unsqueeze(0)).logits[0]
        each = F.cross_entropy(logits[:-1], tokens[1:], reduction="none")
        losses += [
            each[answer.start - start - 1 : answer.end - start - 1]
            for answer in targets(objective, sequence)
            if start <= answer.start < end
        ]
    return losses


def step_loss(
    model: torch.nn.Module, sequences: Many[Sequence], objective: Objective, normalization: Normalization
) -> torch.Tensor:
    """The loss of an optimizer step over all its target tokens, or the mean over its answers' means."""
    losses = [loss for sequence in sequences for loss in answer_losses(model, sequence, objective)]
    if normalization == "token":
        return torch.cat(losses).mean()
    return torch.stack([loss.mean() for loss in losses]).mean()
