"""Evaluation with a prefix that all queries share against evaluation without, at k = 32.

``python -m benchmarks.evaluation_prefix --json FILE [--quick]``. "With" compiles a task's context
once and answers its test queries behind it. "Without" runs the whole prompt of every query anew,
with the same decoding, one by one and in batches of 16; the faster of the two counts. The sides
take turns, task after task, and each task gives one ratio. The base model is the one
that the service would use; ``MANYICL_MODEL_FOLDER`` names a folder that holds it.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from manyicl_core.base_models.catalog import base_model_folder, known_base_models
from manyicl_core.base_models.load import compute_device, compute_dtype, load_base_model
from manyicl_core.base_models.tokenizer import load_tokenizer
from manyicl_core.evaluation.points import QuerySet, TextModel
from manyicl_core.inference.compilation import compile_prefix
from manyicl_core.inference.decoding import answers
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from manyicl_core.inference.prefix import EMPTY_PREFIX
from manyicl_core.method.tasks import Example, Task, TaskDefinition

TASKS = Path(__file__).resolve().parents[1] / "examples" / "tasks"
SHOTS = 32
BATCH_WITHOUT = 16


def main() -> int:
    """Measure and write the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="two tasks, two minutes")
    arguments = parser.parse_args()
    names = ["support_triage", "mail_subject"] if arguments.quick else sorted(path.name for path in TASKS.iterdir())
    alone = 3 if arguments.quick else 8
    entry = known_base_models()[0]
    folder = base_model_folder(entry)
    device = compute_device()
    model = TunedModel(LanguageModel(load_base_model(folder, device, compute_dtype(device))))
    loaded = load_tokenizer(folder)
    tokenizer = TextModel(loaded.encoder, loaded.raw, loaded.line_breaks)
    figures = []
    for name in names:
        figures.append(measure(model, QuerySet(load_task(TASKS / name), 40, tokenizer), tokenizer, alone))
        Console().print(figures[-1])
    table = Table(*figures[0])
    for figure in figures:
        table.add_row(*[str(value) for value in figure.values()])
    Console().print(table)
    keys = ("queries_per_second_with", "queries_per_second_without", "queries_per_second_ratio", "same_answers")
    medians = {key: round(statistics.median(figure[key] for figure in figures), 3) for key in keys}
    dtype = str(model.language_model.dtype)
    result = {"shots": SHOTS, "device": device.type, "dtype": dtype, **medians, "tasks": figures}
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def load_task(folder: Path) -> Task:
    """A sample task, its test part as queries."""

    def examples(name: str) -> list[Example]:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        return [Example(**json.loads(text), line=line) for line, text in enumerate(lines, start=1)]

    definition = TaskDefinition.model_validate_json((folder / "task.json").read_text(encoding="utf-8"))
    return Task(definition=definition, demonstrations=examples("train.jsonl"), queries=examples("test.jsonl"))


def measure(model: TunedModel, queries: QuerySet, tokenizer: TextModel, alone: int) -> dict[str, Any]:
    """One task, both ways; one by one only the first ``alone`` queries are asked without a prefix."""
    context, shots = queries.context(SHOTS, 0, 0, model.language_model.max_tokens)
    assert shots == SHOTS
    started = time.perf_counter()
    with_prefix, _ = queries.answer(model, compile_prefix(model, context))
    with_rate = len(with_prefix) / (time.perf_counter() - started)
    stop = frozenset({tokenizer.encoder.stop})
    prompts = [[*context, *query] for query in queries.encoded]
    rates: dict[int, float] = {}
    without_prefix: list[str] = []
    for batch, asked in ((1, alone), (BATCH_WITHOUT, BATCH_WITHOUT)):
        started = time.perf_counter()
        written = [
            tokens
            for start in range(0, asked, batch)
            for tokens in answers(
                model, EMPTY_PREFIX, prompts[start : start + batch], queries.longest_answer, stop, queries.labels
            )
        ]
        rates[batch] = asked / (time.perf_counter() - started)
        without_prefix = [tokenizer.texts.decode(tokens).strip() for tokens in written]
    same = [first == second for first, second in zip(with_prefix, without_prefix, strict=False)]
    return {
        "task": queries.task.definition.name,
        "context_tokens": len(context),
        "queries_per_second_with": round(with_rate, 3),
        "queries_per_second_without_alone": round(rates[1], 3),
        "queries_per_second_without_batch16": round(rates[BATCH_WITHOUT], 3),
        "queries_per_second_without": round(max(rates.values()), 3),
        "queries_per_second_ratio": round(with_rate / max(rates.values()), 2),
        "same_answers": round(sum(same) / len(same), 3),
    }


if __name__ == "__main__":
    sys.exit(main())
