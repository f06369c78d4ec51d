"""Our engine against the ones that run on the same machine, over HTTP, alternating, one context for all.

``python -m benchmarks.hosted_peers --json FILE [--quick]``. Same weights in bfloat16, a context of 2k
tokens, queries of 30 tokens and answers of 5, from 1, 8 and 32 clients that ask one query after the
other. Every server has its own cache of prompts on and has met the context before; while one has its
turn the others stand still. ``over_peers`` holds queries a second of ours over the peer's, medians
over the rounds: llama.cpp (a slot a client), vLLM for CPUs on the base model and with a LoRA adapter,
and ``transformers serve``, which takes texts only. The first run builds llama.cpp and three environments.
"""

import argparse
import contextlib
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from benchmarks.engine_under_load import (
    QUERY_TOKENS,
    Context,
    closed_loop,
    model_folder,
    random_tokens,
    rate,
    running_engine,
)
from benchmarks.hosted_mix import random_adapters
from benchmarks.peers import servers
from benchmarks.peers.servers import Server
from manyicl_core.settings import get_settings

CONTEXT_TOKENS = 2048
CLIENTS = (1, 8, 32)

Rates = dict[str, dict[str, float]]
"""Queries a second by side and number of clients."""


@dataclass(frozen=True, slots=True)
class Side:
    """One server, how a new query to it reads, and the side of ours that it is compared with."""

    name: str
    url: str
    query: Callable[[], bytes]
    ours: str
    queries_a_client: int
    server: Server | None = None


def main() -> int:
    """Measure and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="one round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        sides = list(started(Path(name), running))
        for side in sides:
            warm_up(side)
        rounds = [measure(sides) for _ in range(1 if arguments.quick else 3)]
    result = summary(sides, rounds)
    table = Table("side", *(f"{clients} clients" for clients in CLIENTS), title="milliseconds a query")
    for side in sides:
        table.add_row(side.name, *(f"{value:.1f}" for value in result["milliseconds_a_query"][side.name].values()))
    Console().print(table, result["over_peers"])
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def started(folder: Path, running: contextlib.ExitStack) -> Iterator[Side]:
    """Every side, one server after the other; they stand still until their turn."""
    model, threads = model_folder(), get_settings().threads
    random_ = random.Random(0)
    tokens = random_tokens(random_, CONTEXT_TOKENS)
    [adapter] = random_adapters(folder, 1)
    url = running.enter_context(running_engine(folder))
    for name, tuned in {"ours": get_settings().base_model, "ours_lora": adapter}.items():
        context = Context(tuned, tokens)
        yield Side(name, url, lambda context=context: context.query(random_), name, 4)  # type: ignore[misc]

    def query(name: str) -> Callable[[], bytes]:
        return lambda: servers.body(name, tokens + random_tokens(random_, QUERY_TOKENS))

    llama = running.enter_context(servers.llama_cpp(folder, model, threads, max(CLIENTS), tokens))
    llama.stop_time()
    yield Side("llama_cpp", llama.url, query("model"), "ours", 4, llama)
    vllm = running.enter_context(servers.vllm(folder, model, {"lora": folder / "adapter-0"}))
    vllm.stop_time()
    yield Side("vllm", vllm.url, query("base"), "ours", 4, vllm)
    yield Side("vllm_lora", vllm.url, query("lora"), "ours_lora", 4, vllm)
    transformers = running.enter_context(servers.transformers_serve(folder, model, threads))
    transformers.stop_time()
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    start = tokenizer.decode(tokens)
    yield Side(
        "transformers_serve",
        transformers.url,
        lambda: servers.body(
            str(model), start + tokenizer.decode(random_tokens(random_, QUERY_TOKENS)), ignore_eos=False
        ),
        "ours",
        1,
        transformers,
    )


def warm_up(side: Side) -> None:
    """Let a server meet the context, and every number of clients."""
    with turn(side):
        for clients in (1, *CLIENTS):
            closed_loop(side.url, [[side.query()]] * clients)


def measure(sides: list[Side]) -> Rates:
    """One round: all sides, at each number of clients in turns."""
    rates: Rates = {side.name: {} for side in sides}
    for clients in CLIENTS:
        for side in sides:
            with turn(side):
                queries = side.queries_a_client * (3 if clients == 1 else 1)
                calls = closed_loop(side.url, [[side.query() for _ in range(queries)] for _ in range(clients)])
                rates[side.name][str(clients)] = rate(calls)
    return rates


@contextlib.contextmanager
def turn(side: Side) -> Iterator[None]:
    """Only this side's server runs; ours sleeps while nobody asks."""
    if side.server is not None:
        side.server.go_on()
    yield
    if side.server is not None:
        side.server.stop_time()


def summary(sides: list[Side], rounds: list[Rates]) -> dict[str, Any]:
    """Medians over the rounds."""
    counts = [str(clients) for clients in CLIENTS]
    return {
        "over_peers": {
            side.name: {
                count: round(statistics.median(one[side.ours][count] / one[side.name][count] for one in rounds), 2)
                for count in counts
            }
            for side in sides
            if side.name != side.ours
        },
        "milliseconds_a_query": {
            side.name: {
                count: round(1000 / statistics.median(one[side.name][count] for one in rounds), 1) for count in counts
            }
            for side in sides
        },
        "rounds": rounds,
    }


if __name__ == "__main__":
    sys.exit(main())
