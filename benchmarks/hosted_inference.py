"""Queries over one compiled context against the same model without reuse, over HTTP, alternating.

``python -m benchmarks.hosted_inference --json FILE [--quick]``. The engine is a process of its
own, as in the service. With reuse: 1, 8 and 32 clients ask one query after the other behind one
context. Without: one client, and every prompt is as long and new, so that all of it is computed.
Queries have 30 tokens and answers 5, at contexts of 1k, 2k, 4k and 8k tokens; ``batch*_over_no_reuse``
are at 2k. Each round gives one ratio; the figures are medians over the rounds.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.engine_under_load import ANSWER_TOKENS, QUERY_TOKENS, Context, closed_loop, rate, running_engine
from benchmarks.engine_under_load import random_tokens as tokens
from manyicl_core.base_models.catalog import known_base_models
from manyicl_core.base_models.load import compute_device, compute_dtype

# The longest leaves room for query and answer in the model's 8192.
LENGTHS = {"1k": 1024, "2k": 2048, "4k": 4096, "8k": 8128}
MAIN_LENGTH = "2k"
BATCHES = (1, 8, 32)
QUERIES_A_CLIENT = 4

Figures = dict[str, float]


def main() -> int:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="1k and 2k, two rounds: two minutes")
    arguments = parser.parse_args()
    names = ["1k", MAIN_LENGTH] if arguments.quick else list(LENGTHS)
    with tempfile.TemporaryDirectory() as folder, running_engine(Path(folder)) as url:
        rounds = measure(url, {name: LENGTHS[name] for name in names}, 2 if arguments.quick else 5)
    result = summary(rounds)
    table = Table("context", *rounds[0][names[0]])
    for name, figures in result["milliseconds_a_query"].items():
        table.add_row(name, *(f"{value:.1f} ms" for value in figures.values()))
    Console().print(table, {key: value for key, value in result.items() if key.endswith("_over_no_reuse")})
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(url: str, lengths: dict[str, int], rounds: int) -> list[dict[str, Figures]]:
    """Milliseconds a query in each round, by length and side."""
    random_ = random.Random(0)
    model = known_base_models()[0].id
    contexts = {name: Context(model, tokens(random_, length)) for name, length in lengths.items()}
    for context in contexts.values():
        # Compiled, and each size of batch met once, before anything is timed.
        for clients in BATCHES:
            closed_loop(url, [[context.query(random_)]] * clients)
    return [{name: _sides(url, context, random_) for name, context in contexts.items()} for _ in range(rounds)]


def _sides(url: str, context: Context, random_: random.Random) -> Figures:
    fresh = Context(context.model, tokens(random_, len(context.tokens)))
    [call] = closed_loop(url, [[fresh.without_reuse(random_)]])
    assert call.cached_tokens == 0
    figures = {"no_reuse": 1000 * call.seconds}
    for clients in BATCHES:
        # A client alone asks more often, so that its figure rests on as much.
        queries = QUERIES_A_CLIENT if clients > 1 else 3 * QUERIES_A_CLIENT
        calls = closed_loop(url, [[context.query(random_) for _ in range(queries)] for _ in range(clients)])
        assert all(call.cached_tokens == len(context.tokens) for call in calls)
        figures[f"batch{clients}"] = 1000 / rate(calls)
    return figures


def summary(rounds: list[dict[str, Figures]]) -> dict[str, Any]:
    """Medians over the rounds: milliseconds, ratios of one round, and how the cost grows with the length."""
    sides = [f"batch{clients}" for clients in BATCHES]
    names = list(rounds[0])
    ratios = {
        name: {side: _median([one[name]["no_reuse"] / one[name][side] for one in rounds]) for side in sides}
        for name in names
    }
    milliseconds = {
        name: {side: _median([one[name][side] for one in rounds]) for side in ("no_reuse", *sides)} for name in names
    }
    shortest, longest = names[0], names[-1]
    return {
        **{f"{side}_over_no_reuse": ratios[MAIN_LENGTH][side] for side in sides},
        "over_no_reuse": ratios,
        "milliseconds_a_query": milliseconds,
        "context_growth": round(LENGTHS[longest] / LENGTHS[shortest], 2),
        "cost_growth": {side: round(milliseconds[longest][side] / milliseconds[shortest][side], 2) for side in sides},
        "query_tokens": QUERY_TOKENS,
        "answer_tokens": ANSWER_TOKENS,
        "dtype": str(compute_dtype(compute_device())),
        "rounds": rounds,
    }


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 2)


if __name__ == "__main__":
    sys.exit(main())
