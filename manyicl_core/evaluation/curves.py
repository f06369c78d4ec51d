"""The metric against k, base beside tuned: each context compiled once for all its queries."""

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer

from manyicl_core.base_models.load import compute_device, compute_dtype, load_base_model
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.contract.evaluation_spec import EvaluationSpec
from manyicl_core.contract.progress import EvaluationResult
from manyicl_core.evaluation.metrics import score
from manyicl_core.inference.decoding import answers
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix import compile_prefix
from manyicl_core.method.contexts import draw_context
from manyicl_core.method.encoding import Encoder
from manyicl_core.method.labels import LabelTree
from manyicl_core.method.tasks import Example, Task

_BATCH = 16
_ADAPTER = "tuned"


def evaluate(spec: EvaluationSpec) -> Iterator[EvaluationResult]:
    """Measure every point, in order; answers are greedy, and labels are constrained as served."""
    torch.set_num_threads(spec.threads)
    device = compute_device()
    folder = Path(spec.base_model_folder)
    encoder = load_encoder(folder)
    model = LanguageModel(load_base_model(folder, device, compute_dtype(device)))
    model.attach(_ADAPTER, Path(spec.adapter_folder))
    texts = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tasks = {task.definition.name: task for task in spec.tasks}
    for point in spec.points:
        started = time.perf_counter()
        task = tasks[point.task]
        queries = task.queries[: spec.queries]
        scores = {
            adapter: _score(model, adapter, encoder, texts, task, queries, point.k, spec)
            for adapter in (None, _ADAPTER)
        }
        yield EvaluationResult(
            task=point.task,
            family=task.definition.family,
            role=task.definition.role,
            k=point.k,
            metric=task.definition.metric,
            base=scores[None],
            tuned=scores[_ADAPTER],
            queries=len(queries) * spec.draws,
            seconds=time.perf_counter() - started,
        )


def _score(
    model: LanguageModel,
    adapter: str | None,
    encoder: Encoder,
    texts: Tokenizer,
    task: Task,
    queries: list[Example],
    k: int,
    spec: EvaluationSpec,
) -> float:
    """The mean of the task's metric over the draws."""
    model.activate(adapter)
    definition = task.definition
    labels = LabelTree(encoder.answer(label) for label in definition.labels) if definition.labels else None
    encoded = [encoder.query(query.input) for query in queries]
    # Bounds a base model that does not know when to stop, and cuts no right answer and no label.
    possible = {example.output for example in (*task.demonstrations, *queries)} | set(definition.labels or [])
    longest = max(len(encoder.answer(text)) for text in possible)
    room = model.max_tokens - max(map(len, encoded)) - longest
    # Similar lengths together: a batch is padded to its longest query.
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    total = 0.0
    for draw in range(spec.draws):
        context = draw_context(encoder, definition, task.demonstrations, k, room, spec.seed, draw)
        prefix = compile_prefix(model, context.tokens)
        predictions = [""] * len(encoded)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            written = answers(
                model, prefix, [encoded[index] for index in batch], longest, frozenset({encoder.stop}), labels
            )
            for index, tokens in zip(batch, written, strict=True):
                predictions[index] = texts.decode(tokens).strip()
        total += score(definition.metric, predictions, [query.output for query in queries])
    return total / spec.draws
