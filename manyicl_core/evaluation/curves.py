"""Exact match at every number of shots, from one forward pass a sequence and without generation.

Greedy decoding writes a gold answer exactly if, and only if, every token of it, the stop token
included, is the most likely one after the gold tokens before it (of those that the label tree
allows there, in a task with a closed label set). So one pass over a sequence of demonstrations
that the model was not trained on, the task's queries, tells for each of them whether the model
would have answered it with the ones before it as its context. Tokens are compared, not texts:
the answer in another of Unicode's canonically equal forms is not the gold one here.
"""

from collections.abc import Sequence as Many

import numpy as np
import torch

from manyicl_core.contract.progress import CurveResult
from manyicl_core.evaluation.points import label_tree
from manyicl_core.inference.language_model import TunedModel
from manyicl_core.method.encoding import Encoder
from manyicl_core.method.labels import LabelTree
from manyicl_core.method.sequences import EncodedTask, Sequence, StreamSettings
from manyicl_core.method.tasks import Example, Task

_ROWS = 256
_LONGEST = 131_072


def measure_curve(
    model: TunedModel, name: str, task: Task, encoder: Encoder, shots: int, queries: int, draws: int, seed: int
) -> CurveResult:
    """Exact match at 0 to ``shots`` shots, over ``draws`` orders of the task's first ``queries`` queries.

    Orders are natural even where labels are balanced in a served context: in a balanced order
    the labels before an answer give a part of it away. Each order is cut into sequences of
    ``shots`` + 1 queries, fewer where the model reads no more.
    """
    hits: dict[int, list[bool]] = {}
    labels = label_tree(task, encoder)
    for sequence in _sequences(task, encoder, shots + 1, queries, draws, seed, model.language_model.max_tokens):
        found = answered_exactly(model, sequence, labels)
        for answer, hit in zip(sequence.answers, found, strict=True):
            hits.setdefault(answer.shot, []).append(hit)
    return CurveResult(
        model=name,
        task=task.definition.name,
        exact_match=[sum(hits[shot]) / len(hits[shot]) for shot in sorted(hits)],
        answers=[len(hits[shot]) for shot in sorted(hits)],
    )


def answered_exactly(model: TunedModel, sequence: Sequence, labels: LabelTree | None) -> list[bool]:
    """For each answer of ``sequence``, whether greedy decoding in its place would write it exactly."""
    tokens = torch.from_numpy(sequence.tokens)
    states = model.states(tokens)
    positions = [position for answer in sequence.answers for position in range(answer.start, answer.end)]
    allowed: list[list[int] | None] = [
        labels.allowed(sequence.tokens[answer.start : position].tolist()) if labels else None
        for answer in sequence.answers
        for position in range(answer.start, answer.end)
    ]
    chosen: list[int] = []
    for start in range(0, len(positions), _ROWS):
        rows = torch.tensor(positions[start : start + _ROWS], device=model.language_model.device) - 1
        chosen += _most_likely(model.language_model.logits(states[rows]), allowed[start : start + _ROWS])
    right = np.array(chosen) == sequence.tokens[positions]
    ends = np.cumsum([answer.end - answer.start for answer in sequence.answers])
    return [bool(span.all()) for span in np.split(right, ends[:-1])]


def _most_likely(logits: torch.Tensor, allowed: Many[list[int] | None]) -> list[int]:
    """The arg-max token of each row ``[rows, vocabulary]``, out of those allowed there."""
    if all(tokens is None for tokens in allowed):
        return [int(token) for token in logits.argmax(dim=1).tolist()]
    return [
        int(row.argmax()) if tokens is None else tokens[int(row[torch.tensor(tokens)].argmax())]
        for row, tokens in zip(logits.cpu(), allowed, strict=True)
    ]


def _sequences(
    task: Task, encoder: Encoder, size: int, queries: int, draws: int, seed: int, max_tokens: int
) -> list[Sequence]:
    """Training sequences, made of queries; every query is an answer once a draw or more often."""
    pool = task.model_copy(update={"demonstrations": [_scored(query) for query in task.queries[:queries]]})
    encoded = EncodedTask(pool, encoder)
    settings = StreamSettings(max_sequence_tokens=min(max_tokens, _LONGEST), max_demonstrations=size)
    return [encoded.assemble(indices) for draw in range(draws) for indices in encoded.layout(seed, draw, 0, settings)]


def _scored(query: Example) -> Example:
    """A query of whose exchanges the last one alone is a target."""
    earlier = [turn.model_copy(update={"trained": False}) for turn in query.earlier]
    return query.model_copy(update={"trained": True, "earlier": earlier})
