"""Many contexts over many adapters against one context, under the same traffic, alternating.

``python -m benchmarks.hosted_mix --json FILE [--quick]``. 16 clients ask one query after the
other; which context a query belongs to follows Zipf's law over 100 contexts of 1k tokens on 10
adapters. The other side is the same traffic over the first context alone. The engine's memory for
prefixes holds a part of the contexts, its disk all of them; hits, evictions and memory are the
engine's own figures.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.engine_under_load import (
    Context,
    closed_loop,
    metrics,
    model_folder,
    random_tokens,
    rate,
    running_engine,
)
from manyicl_core.base_models.catalog import known_base_models
from manyicl_core.base_models.load import load_base_model
from manyicl_core.contract.train_spec import LoraSpec
from manyicl_core.objects import open_store, put_weights
from manyicl_core.training.weights import add_adapter, save_weights

CLIENTS = 16
RANK = 16

_LOOKUPS = "manyicl_prefix_lookups_total"
_EVICTIONS = "manyicl_prefix_evictions_total"
_PREFIX_BYTES = "manyicl_prefix_bytes"
_RESIDENT = "process_resident_memory_bytes"


@dataclass(frozen=True, slots=True)
class Size:
    """How large a run is; ``memory_bytes`` is the engine's memory for prefixes."""

    contexts: int
    adapters: int
    tokens: int
    queries_a_client: int
    rounds: int
    memory_bytes: int


FULL = Size(contexts=100, adapters=10, tokens=1024, queries_a_client=40, rounds=3, memory_bytes=1 << 30)
QUICK = Size(contexts=20, adapters=4, tokens=512, queries_a_client=8, rounds=2, memory_bytes=120 << 20)


def main() -> int:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="20 contexts on 4 adapters: two minutes")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        adapters = random_adapters(Path(folder), size.adapters)
        settings = {"prefix_cache_bytes": str(size.memory_bytes), "max_adapters": str(size.adapters)}
        with running_engine(Path(folder), **settings) as url:
            result = measure(url, size, adapters)
    Console().print({key: value for key, value in result.items() if key != "rounds"})
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def random_adapters(folder: Path, count: int) -> list[str]:
    """The hashes of adapters with random weights, put into the store that the engine will read."""
    store = open_store((folder / "artifacts").as_uri())
    hashes = []
    for number in range(count):
        torch.manual_seed(number)
        base = load_base_model(model_folder(), torch.device("cpu"), torch.float32)
        adapter = add_adapter(base, known_base_models()[0].id, LoraSpec(rank=RANK, alpha=2 * RANK))
        for parameter in adapter.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.01)
        save_weights(adapter, folder / f"adapter-{number}")
        hashes.append(put_weights(store, folder / f"adapter-{number}"))
    return hashes


def measure(url: str, size: Size, adapters: list[str]) -> dict[str, Any]:
    """Both sides in turns; one ratio a round."""
    random_ = random.Random(0)
    contexts = [
        Context(adapters[number % len(adapters)], random_tokens(random_, size.tokens))
        for number in range(size.contexts)
    ]
    # Every adapter is loaded, and the engine has made room for its work: what comes now is prefixes.
    closed_loop(url, traffic(contexts[: len(adapters)], 2, random_))
    start = metrics(url)
    without_prefixes = start[_RESIDENT] - start[_PREFIX_BYTES]
    # Compiled before; the most asked for last, so that the store starts as traffic would leave it.
    closed_loop(url, [[context.compilation() for context in reversed(contexts)]])
    rounds: list[dict[str, float]] = []
    for _ in range(size.rounds):
        before = metrics(url)
        mixed = closed_loop(url, traffic(contexts, size.queries_a_client, random_))
        after = metrics(url)
        alone = closed_loop(url, traffic(contexts[:1], size.queries_a_client, random_))
        rounds.append(
            {
                "many_over_one_context": rate(mixed) / rate(alone),
                "many_queries_per_second": rate(mixed),
                "one_queries_per_second": rate(alone),
                **_cache(before, after),
                "prefix_bytes_over_budget": after[_PREFIX_BYTES] / size.memory_bytes,
                "resident_over_budget": (after[_RESIDENT] - without_prefixes) / size.memory_bytes,
            }
        )
    return {
        **{key: round(statistics.median(one[key] for one in rounds), 3) for key in rounds[0]},
        "contexts": size.contexts,
        "adapters": size.adapters,
        "context_tokens": size.tokens,
        "clients": CLIENTS,
        "memory_budget_bytes": size.memory_bytes,
        "rounds": rounds,
    }


def _cache(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Where the contexts of one round's queries came from, and how many made room for others."""
    found = {source: _grown(before, after, f"{_LOOKUPS}/{source}") for source in ("memory", "disk", "compiled")}
    total = sum(found.values())
    return {
        "memory_hit_rate": found["memory"] / total,
        "hit_rate": (found["memory"] + found["disk"]) / total,
        "evictions": _grown(before, after, _EVICTIONS),
    }


def _grown(before: dict[str, float], after: dict[str, float], name: str) -> float:
    return after.get(name, 0.0) - before.get(name, 0.0)


def traffic(contexts: list[Context], queries: int, random_: random.Random) -> list[list[bytes]]:
    """What each client asks: the context of rank r with a weight of 1 / r (Zipf's law)."""
    weights = list(accumulate(1 / rank for rank in range(1, len(contexts) + 1)))
    return [
        [context.query(random_) for context in random_.choices(contexts, cum_weights=weights, k=queries)]
        for _ in range(CLIENTS)
    ]


if __name__ == "__main__":
    sys.exit(main())
