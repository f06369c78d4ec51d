"""The metric of one model and task against k: each context compiled once for all its queries."""

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from manyicl_core.contract.evaluation_spec import Point
from manyicl_core.contract.progress import EvaluationResult
from manyicl_core.evaluation.evidence import answer_labels, evidence_of
from manyicl_core.evaluation.metrics import item_score
from manyicl_core.evaluation.statistics import Items, interval
from manyicl_core.inference.compilation import compile_prefix
from manyicl_core.inference.decoding import answers
from manyicl_core.inference.language_model import TunedModel
from manyicl_core.inference.prefix import EMPTY_PREFIX, Prefix
from manyicl_core.method.contexts import draw_context
from manyicl_core.method.encoding import STOP, Encoder, unescape_answer
from manyicl_core.method.labels import LabelTree
from manyicl_core.method.tasks import ListedLabels, Task

BATCH = 32


@dataclass(frozen=True, slots=True)
class TextModel:
    """A tokenizer's two directions: ``encoder`` for prompts, ``texts`` for answers, which tokens of ``stops`` end."""

    encoder: Encoder
    texts: Tokenizer
    stops: frozenset[int]

    def answer(self, tokens: list[int]) -> str:
        """The text of an answer as it was written: up to the line break, which may stand within its last token."""
        return unescape_answer(self.texts.decode(tokens).partition(STOP)[0].strip())


class QuerySet:
    """A task's queries, encoded once for all models, draws and numbers of shots."""

    def __init__(self, task: Task, queries: int, tokenizer: TextModel) -> None:
        self.task = task
        self.queries = task.queries[:queries]
        assert self.queries, f"task {task.definition.name!r} has no queries"
        self._tokenizer = tokenizer
        encoder, definition = tokenizer.encoder, task.definition
        self.encoded = [encoder.query(query.input, query.earlier) for query in self.queries]
        self.labels = label_tree(task, encoder)
        self._listed = None if definition.labels is None else ListedLabels(definition.labels)
        # Bounds a model that does not know when to stop, and cuts no right answer and no label.
        possible = {example.output for example in (*task.demonstrations, *self.queries)} | set(definition.labels or [])
        self.longest_answer = max(len(encoder.answer(text)) for text in possible)

    def context(self, k: int, draw: int, seed: int, max_tokens: int) -> tuple[tuple[int, ...], int]:
        """Tokens and shots of a context that leaves room for every query and answer in ``max_tokens``."""
        room = max_tokens - max(map(len, self.encoded)) - self.longest_answer
        definition, demonstrations = self.task.definition, self.task.demonstrations
        context = draw_context(self._tokenizer.encoder, definition, demonstrations, k, room, seed, draw)
        return context.tokens, context.shots

    def answer(self, model: TunedModel, prefix: Prefix) -> tuple[list[str], list[float]]:
        """The greedy answer to every query, and the seconds each took: an equal share of its batch's."""
        predictions = [""] * len(self.encoded)
        seconds = [0.0] * len(self.encoded)
        # Similar lengths together: a batch is padded to its longest query.
        order = sorted(range(len(self.encoded)), key=lambda index: len(self.encoded[index]))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            started = time.perf_counter()
            queries = [self.encoded[index] for index in batch]
            written = answers(model, prefix, queries, self.longest_answer, self._tokenizer.stops, self.labels)
            spent = time.perf_counter() - started
            for index, tokens in zip(batch, written, strict=True):
                answer = self._tokenizer.answer(tokens)
                predictions[index] = answer if self._listed is None else self._listed.read(answer)
                seconds[index] = spent / len(batch)
        return predictions, seconds


def label_tree(task: Task, encoder: Encoder) -> LabelTree | None:
    """The answers that a task with a closed label set allows."""
    labels = task.definition.labels
    return LabelTree(encoder.answer(label) for label in labels) if labels else None


def measure_points(
    model: TunedModel, queries: QuerySet, points: Sequence[Point], draws: int, seed: int, folder: Path
) -> Iterator[EvaluationResult]:
    """Measure one model at one task, from the fewest shots to the most; write each point's items.

    Answers are greedy, labels constrained and demonstrations drawn as they are served. A context
    extends the shorter one of the same draw, so no demonstration runs through the model twice.
    """
    prefixes = [EMPTY_PREFIX] * draws
    labels = answer_labels(queries.task, queries.queries)
    for point in sorted(points, key=lambda point: point.k):
        started = time.perf_counter()
        shots: list[int] = []
        seconds: list[float] = []
        predictions: list[list[str]] = []
        # Without demonstrations every draw is the same.
        for draw in range(draws if point.k else 1):
            tokens, held = queries.context(point.k, draw, seed, model.language_model.max_tokens)
            prefixes[draw] = compile_prefix(model, tokens, prefixes[draw])
            answered, spent = queries.answer(model, prefixes[draw])
            shots.append(held)
            seconds += spent
            predictions.append(answered)
        items = _items(queries.task, queries, predictions)
        found = interval([items], seed)
        definition = queries.task.definition
        yield EvaluationResult(
            model=point.model,
            task=point.task,
            family=definition.family,
            role=definition.role,
            k=point.k,
            shots=min(shots),
            metric=definition.metric,
            value=found.value,
            low=found.low,
            high=found.high,
            queries=len(queries.queries),
            draws=len(predictions),
            seconds=time.perf_counter() - started,
            seconds_per_query=statistics.median(seconds),
            items_file=_write(items, folder),
            evidence=evidence_of(items, labels, seed),
        )


def _items(task: Task, queries: QuerySet, predictions: list[list[str]]) -> Items:
    """Scores of ``predictions [draws][items]``."""
    metric = task.definition.metric
    references = tuple(query.output for query in queries.queries)
    by_item = tuple(zip(*predictions, strict=True))
    scores = [
        [item_score(metric, prediction, reference) for prediction in row]
        for row, reference in zip(by_item, references, strict=True)
    ]
    return Items(metric, tuple(query.line for query in queries.queries), np.array(scores), references, by_item)


def _write(items: Items, folder: Path) -> str:
    name = f"items-{len(list(folder.glob('items-*.jsonl'))):05}.jsonl"
    with (folder / name).open("w", encoding="utf-8") as file:
        for draw in range(items.scores.shape[1]):
            for index, line in enumerate(items.lines):
                item = {
                    "line": line,
                    "draw": draw,
                    "prediction": items.predictions[index][draw],
                    "reference": items.references[index],
                    "score": float(items.scores[index, draw]),
                }
                file.write(json.dumps(item, ensure_ascii=False) + "\n")
    return name
