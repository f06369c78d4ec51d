"""Greedy decoding the plain way: every token from a whole forward pass, without cache, batch or padding."""

from collections.abc import Collection, Sequence

import torch

from manyicl_core.method.labels import LabelTree


@torch.no_grad()
def plain_greedy(
    model: torch.nn.Module,
    prompt: Sequence[int],
    max_tokens: int,
    stop: Collection[int] = (),
    labels: LabelTree | None = None,
) -> list[int]:
    """The answer to ``prompt``, its stop token included."""
    written: list[int] = []
    while len(written) < max_tokens and not (written and written[-1] in stop):
        logits = model(input_ids=torch.tensor([[*prompt, *written]])).logits[0, -1]
        if labels is not None:
            outside = torch.ones_like(logits, dtype=torch.bool)
            outside[labels.allowed(written)] = False
            logits = logits.masked_fill(outside, -torch.inf)
        written.append(int(logits.argmax()))
    return written


@torch.no_grad()
def is_greedy(
    model: torch.nn.Module,
    prompt: Sequence[int],
    written: Sequence[int],
    max_tokens: int,
    stop: Collection[int] = (),
) -> bool:
    """Whether ``plain_greedy`` would have written this, from one pass over all of it."""
    logits = model(input_ids=torch.tensor([[*prompt, *written]])).logits[0, len(prompt) - 1 : -1]
    ended = len(written) == max_tokens or written[-1] in stop
    return ended and not set(written[:-1]) & set(stop) and logits.argmax(dim=-1).tolist() == list(written)
