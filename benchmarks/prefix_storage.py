"""A prefix from disk against compiled anew, and prefixes in 8 bits against whole ones.

``python -m benchmarks.prefix_storage --json FILE [--data DIR] [--quick]``. Speed: a context of 2,048
tokens is compiled, and loaded from the engine's cache on disk, hash checked, with the page cache
warm; the sides take turns. Memory: bytes a token of both kinds. Accuracy, with ``--data``: six real
tasks behind 32 demonstrations, the same greedy answers from the same prefix whole and in 8 bits.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.closed_labels import load_model
from benchmarks.task_folders import read_task
from manyicl_core.evaluation.metrics import item_score
from manyicl_core.evaluation.points import QuerySet, TextModel
from manyicl_core.inference.compilation import compile_prefix
from manyicl_core.inference.language_model import TunedModel
from manyicl_core.inference.prefix import PrefixKey
from manyicl_core.inference.prefix_files import PrefixFiles

TASKS = ["trec", "sst2", "banking77", "sick", "strategyqa", "agnews_headline"]
TOKENS, SHOTS = 2048, 32


def main() -> int:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of task folders, for the accuracy")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="few rounds and queries: two minutes")
    arguments = parser.parse_args()
    model, tokenizer = load_model(None)
    figures: dict[str, Any] = measure_loading(model, 3 if arguments.quick else 10)
    if arguments.data is not None:
        names, queries = (TASKS[:2], 20) if arguments.quick else (TASKS, 100)
        figures["tasks"] = [measure_accuracy(model, arguments.data, name, queries, tokenizer) for name in names]
        for side in ("whole", "eight_bits"):
            figures[f"mean_metric_{side}"] = round(statistics.mean(task[side] for task in figures["tasks"]), 4)
    Console().print_json(data=figures)
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def measure_loading(model: TunedModel, rounds: int) -> dict[str, float]:
    """Seconds of both ways to a prefix, and what it weighs."""
    compiled, loaded = [], []
    with tempfile.TemporaryDirectory() as folder:
        files = PrefixFiles(Path(folder), 1 << 34, "benchmark", model.language_model.device)
        for number in range(rounds + 1):
            dice = random.Random(number)
            tokens = tuple(dice.randrange(model.language_model.vocabulary) for _ in range(TOKENS))
            started = time.perf_counter()
            prefix = compile_prefix(model, tokens)
            compiled.append(time.perf_counter() - started)
            key = PrefixKey(None, "", tokens)
            files.write(key, prefix)
            files.wait()
            started = time.perf_counter()
            assert files.read(key) is not None
            loaded.append(time.perf_counter() - started)
        files.close()
    # The first round warms both up.
    pairs = list(zip(compiled[1:], loaded[1:], strict=True))
    return {
        "compile_seconds": round(statistics.median(compiled[1:]), 4),
        "load_seconds": round(statistics.median(loaded[1:]), 4),
        "compile_over_load": round(statistics.median(slow / fast for slow, fast in pairs), 1),
        "bytes_per_token": prefix.size_bytes / TOKENS,
        "bytes_per_token_eight_bits": round(prefix.in_eight_bits().size_bytes / TOKENS, 1),
    }


def measure_accuracy(model: TunedModel, data: Path, name: str, count: int, tokenizer: TextModel) -> dict[str, Any]:
    """One task's metric from a whole prefix and from the same one in 8 bits."""
    task = read_task(data, name, 0).task
    queries = QuerySet(task, count, tokenizer)
    prefix = compile_prefix(model, queries.context(SHOTS, 0, 0, model.language_model.max_tokens)[0])
    whole, _ = queries.answer(model, prefix)
    eight, _ = queries.answer(model, prefix.in_eight_bits())
    references = [query.output for query in queries.queries]

    def score(answers: list[str]) -> float:
        metric = task.definition.metric
        return statistics.mean(item_score(metric, *pair) for pair in zip(answers, references, strict=True))

    return {
        "task": name,
        "metric": task.definition.metric,
        "whole": round(score(whole), 4),
        "eight_bits": round(score(eight), 4),
        "same_answers": round(statistics.mean(map(str.__eq__, whole, eight)), 4),
    }


if __name__ == "__main__":
    sys.exit(main())
