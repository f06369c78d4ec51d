"""Every single prediction of an evaluation, as JSONL."""

import json
from collections.abc import Iterable, Iterator

from manyicl_core.objects import ArtifactStore
from manyicl_core.store.tables import EvaluationResult


def items_key(evaluation_id: str, sha256: str) -> str:
    """Where the items of one result lie: content-addressed, so that a stale worker can spoil nothing."""
    return f"evaluations/{evaluation_id}/{sha256}.jsonl"


def prediction_lines(store: ArtifactStore, results: Iterable[EvaluationResult]) -> Iterator[bytes]:
    """One line an item: model, task, k, line, draw, prediction, reference, score."""
    for result in results:
        for item in store.get(result.items_key).splitlines():
            line = {"model": result.model, "task": result.task, "k": result.k, **json.loads(item)}
            yield json.dumps(line, ensure_ascii=False).encode() + b"\n"
