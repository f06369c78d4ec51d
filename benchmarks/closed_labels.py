"""Answers of real label tasks with and without the constraint to the labels, and how far their probabilities hold.

``python -m benchmarks.closed_labels --data DIR --json FILE [--quick]``. Ten tasks, 500 test queries
each, behind one context of 16 demonstrations, base model, or ``--weights`` a folder with an
adapter's files. Off-label: an answer that is none of the labels. ECE: expected calibration error of
the most probable label's probability, 10 equal bins (Guo et al. 2017).
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.task_folders import read_task
from manyicl_core.base_models.catalog import base_model_folder, known_base_models
from manyicl_core.base_models.load import compute_device, compute_dtype, load_base_model
from manyicl_core.base_models.tokenizer import load_tokenizer
from manyicl_core.evaluation.points import QuerySet, TextModel
from manyicl_core.inference.compilation import compile_prefix
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from manyicl_core.inference.prefix import Prefix
from manyicl_core.inference.scoring import LabelQuery, label_scores

TASKS = [
    "ag_news", "banking77", "customer_reviews", "med", "sick", "sst2", "strategyqa", "subj", "trec", "tweet_emotion",
]  # fmt: skip
SHOTS, QUERIES, BATCH, BINS = 16, 500, 16, 10


def main() -> int:
    """Measure every task and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of task folders")
    parser.add_argument("--weights", type=Path, help="folder of an adapter; the base model if left out")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="three tasks, 40 queries: two minutes")
    arguments = parser.parse_args()
    names, count = (["med", "sst2", "trec"], 40) if arguments.quick else (TASKS, QUERIES)
    model, tokenizer = load_model(arguments.weights)
    figures = [
        measure(model, QuerySet(read_task(arguments.data, name, 0).task, count, tokenizer), tokenizer) for name in names
    ]
    table = Table(*figures[0])
    for figure in figures:
        table.add_row(*[str(value) for value in figure.values()])
    Console().print(table)
    keys = (
        "off_label_free",
        "off_label_constrained",
        "accuracy_free",
        "accuracy_constrained",
        "accuracy_scored",
        "ece",
    )
    means = {key: round(statistics.mean(figure[key] for figure in figures), 4) for key in keys}
    arguments.json.write_text(json.dumps({**means, "tasks": figures}, indent=2) + "\n", encoding="utf-8")
    return 0


def load_model(weights: Path | None) -> tuple[TunedModel, TextModel]:
    """The service's base model, with the adapter if there is one."""
    folder = base_model_folder(known_base_models()[0])
    device = compute_device()
    model = LanguageModel(load_base_model(folder, device, compute_dtype(device)))
    if weights is not None:
        model.attach("adapter", weights)
    loaded = load_tokenizer(folder)
    tokenizer = TextModel(loaded.encoder, loaded.raw, loaded.line_breaks)
    return TunedModel(model, None if weights is None else "adapter"), tokenizer


def measure(model: TunedModel, queries: QuerySet, tokenizer: TextModel) -> dict[str, Any]:
    """One task, answered in three ways."""
    labels = [label.strip() for label in queries.task.definition.labels or []]
    references = [query.output.strip() for query in queries.queries]
    prefix = compile_prefix(model, queries.context(SHOTS, 0, 0, model.language_model.max_tokens)[0])
    constrained, _ = queries.answer(model, prefix)
    tree, queries.labels = queries.labels, None
    free, _ = queries.answer(model, prefix)
    queries.labels = tree
    probabilities = label_probabilities(model, queries, prefix, [tokenizer.encoder.answer(label) for label in labels])
    scored = [labels[index] for index in probabilities.argmax(axis=1)]
    return {
        "task": queries.task.definition.name,
        "labels": len(labels),
        "queries": len(references),
        "off_label_free": round(share(answer.strip() not in labels for answer in free), 4),
        "off_label_constrained": round(share(answer.strip() not in labels for answer in constrained), 4),
        "accuracy_free": round(share(map(str.__eq__, free, references)), 4),
        "accuracy_constrained": round(share(map(str.__eq__, constrained, references)), 4),
        "accuracy_scored": round(share(map(str.__eq__, scored, references)), 4),
        "ece": round(calibration_error(probabilities.max(axis=1), np.array(scored) == np.array(references)), 4),
    }


def label_probabilities(
    model: TunedModel, queries: QuerySet, prefix: Prefix, labels: list[list[int]]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Of every query ``[queries, labels]``; rows sum to one."""
    scores: list[list[float]] = []
    for start in range(0, len(queries.encoded), BATCH):
        batch = [LabelQuery(model.adapter, prefix, query, labels) for query in queries.encoded[start : start + BATCH]]
        scores += label_scores(model.language_model, batch)
    return torch.tensor(scores, dtype=torch.float64).softmax(dim=1).numpy()


def share(events: Any) -> float:
    """How many of them are true."""
    return statistics.mean(float(event) for event in events)


def calibration_error(
    confidence: np.ndarray[Any, np.dtype[np.float64]], right: np.ndarray[Any, np.dtype[np.bool_]]
) -> float:
    """The mean distance between confidence and accuracy over equal bins, by how many fall into each."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    inside = [bins == number for number in range(BINS)]
    return sum(float(abs(confidence[here].mean() - right[here].mean()) * here.mean()) for here in inside if here.any())


if __name__ == "__main__":
    sys.exit(main())
