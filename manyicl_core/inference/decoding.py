"""Decode answers for a batch of queries that share one prefix."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import DynamicCache

from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix import Prefix
from manyicl_core.method.labels import LabelTree


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; temperature 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(slots=True)
class _Row:
    query: int
    written: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    length: int = 0


def decode(
    model: LanguageModel,
    prefix: Prefix,
    queries: Sequence[Sequence[int]],
    max_tokens: int,
    stop: frozenset[int],
    labels: LabelTree | None = None,
    sampling: Sampling | None = None,
) -> Iterator[list[tuple[int, int]]]:
    """Yield, at each step, the new ``(query index, token)`` pairs; several a query are possible.

    A row ends with a token of ``stop`` (which is yielded), after a whole label, or after
    ``max_tokens``. With ``labels`` only tokens that continue a label are considered, and runs of
    tokens without a choice are written without a model call.

    Args:
        queries: token ids of each query, at least one each.
    """
    sampling = sampling or Sampling()
    generator = torch.Generator(device="cpu")
    if sampling.seed is not None:
        generator.manual_seed(sampling.seed)
    else:
        generator.seed()

    rows = [_Row(index, pending=list(query), length=len(prefix.tokens)) for index, query in enumerate(queries)]
    # Of the rows' own tokens only: the prefix is never copied.
    cache = DynamicCache()
    mask = torch.ones(len(rows), 0, dtype=torch.long)

    while rows:
        width = max(len(row.pending) for row in rows)
        # Padded on the right: a real token then never attends to a pad, and no row is all masked.
        tokens = torch.zeros(len(rows), width, dtype=torch.long)
        fresh = torch.zeros(len(rows), width, dtype=torch.long)
        for index, row in enumerate(rows):
            tokens[index, : len(row.pending)] = torch.tensor(row.pending)
            fresh[index, : len(row.pending)] = 1
        positions = torch.tensor([row.length for row in rows])[:, None] + torch.arange(width)
        last = torch.tensor([len(row.pending) - 1 for row in rows])
        mask = torch.cat([mask, fresh], dim=1)
        states = model.hidden_states(
            tokens.to(model.device),
            cache,
            None if bool(mask.all()) else mask.to(model.device),
            positions.to(model.device),
            prefix.layers,
        )
        logits = model.logits(states[torch.arange(len(rows)), last]).cpu()

        step: list[tuple[int, int]] = []
        going: list[int] = []
        for index, row in enumerate(rows):
            row.length += len(row.pending)
            token = _choose(logits[index], labels.allowed(row.written) if labels else None, sampling, generator)
            new = [token]
            if labels:
                new += labels.forced([*row.written, token])
            new = new[: max_tokens - len(row.written)]
            row.written += new
            row.pending = new
            step += [(row.query, token) for token in new]
            if row.written[-1] not in stop and len(row.written) < max_tokens:
                going.append(index)
        yield step
        if len(going) < len(rows):
            rows = [rows[index] for index in going]
            if rows:
                keep = torch.tensor(going)
                mask = mask[keep]
                cache.batch_select_indices(keep.to(model.device))


def answers(
    model: LanguageModel,
    prefix: Prefix,
    queries: Sequence[Sequence[int]],
    max_tokens: int,
    stop: frozenset[int],
    labels: LabelTree | None = None,
) -> list[list[int]]:
    """Greedy answers' token ids without their stop token, in the order of ``queries``."""
    written: list[list[int]] = [[] for _ in queries]
    for step in decode(model, prefix, queries, max_tokens, stop, labels):
        for query, token in step:
            if token not in stop:
                written[query].append(token)
    return written


def _choose(logits: torch.Tensor, allowed: list[int] | None, sampling: Sampling, generator: torch.Generator) -> int:
    """The next token id, out of ``allowed`` where that is given."""
    if allowed is not None:
        choices = torch.tensor(allowed)
        return int(choices[_choose(logits[choices], None, sampling, generator)])
    if sampling.temperature == 0.0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    if sampling.top_p < 1.0:
        ranked, order = probabilities.sort(descending=True)
        outside = ranked.cumsum(0) - ranked >= sampling.top_p
        probabilities = torch.zeros_like(probabilities).scatter(0, order, ranked.masked_fill(outside, 0.0))
    return int(torch.multinomial(probabilities, 1, generator=generator))
