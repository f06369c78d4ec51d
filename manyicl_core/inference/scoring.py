"""Log-probabilities of whole labels, in two stages, and of the tokens of a given text.

First every query runs once; its last logits give each label's first token. Then the labels' other
tokens run as short rows of their own on a copy of the query's few keys and values, behind the same
shared prefix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from manyicl_core.inference.answer import TokenLogprob, token_logprob
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix import Prefix
from manyicl_core.inference.slots import Slots

_TAIL_TOKENS = 2048
"""Tokens of the second stage in one pass: each has logits of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelQuery:
    """A query behind a prefix, and token ids of the labels, each with its stop token."""

    adapter: str | None
    prefix: Prefix
    query: Sequence[int]
    labels: Sequence[Sequence[int]]


def label_scores(model: LanguageModel, queries: Sequence[LabelQuery]) -> list[list[float]]:
    """For each query, the log-probability of each label as the whole answer."""
    slots = Slots(model)
    for _ in queries:
        slots.take()
    states = slots.run(
        [query.adapter for query in queries],
        [query.query for query in queries],
        [query.prefix for query in queries],
    )
    last = torch.tensor([len(query.query) for query in queries]).cumsum(0) - 1
    first = model.logits(states[last.to(states.device)]).log_softmax(dim=-1)
    scores = [first[index, [label[0] for label in query.labels]].tolist() for index, query in enumerate(queries)]
    tails = [
        (index, number)
        for index, query in enumerate(queries)
        for number, label in enumerate(query.labels)
        if len(label) > 1
    ]
    # Labels of similar lengths together.
    tails.sort(key=lambda tail: len(queries[tail[0]].labels[tail[1]]))
    while tails:
        # All are padded to the last one.
        longest = len(queries[tails[-1][0]].labels[tails[-1][1]])
        pack = max(1, _TAIL_TOKENS // longest)
        _add_tails(model, queries, slots, tails[-pack:], scores)
        del tails[-pack:]
    return scores


def _add_tails(
    model: LanguageModel,
    queries: Sequence[LabelQuery],
    slots: Slots,
    tails: list[tuple[int, int]],
    scores: list[list[float]],
) -> None:
    """Add the log-probabilities of the tokens after the first one, for ``tails``: (query, label)."""
    labels = [queries[index].labels[number] for index, number in tails]
    states = slots.copy([index for index, _ in tails]).run(
        [queries[index].adapter for index, _ in tails],
        [label[:-1] for label in labels],
        [queries[index].prefix for index, _ in tails],
    )
    following = torch.tensor([token for label in labels for token in label[1:]], device=states.device)
    logprobs = model.logits(states).log_softmax(dim=-1).gather(1, following[:, None])[:, 0]
    sums = [float(part.sum()) for part in logprobs.split([len(label) - 1 for label in labels])]
    for (index, number), value in zip(tails, sums, strict=True):
        scores[index][number] += value


def following_logprobs(
    model: LanguageModel, states: torch.Tensor, following: Sequence[int], top: int
) -> list[TokenLogprob]:
    """Of the tokens that follow in a given text, by the states ``[tokens, hidden]`` before them."""
    logits = model.logits(states).cpu()
    return [token_logprob(row, token, top) for row, token in zip(logits, following, strict=True)]
