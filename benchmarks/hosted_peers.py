"""Our engine against the ones that run on the same machine, over HTTP, alternating, one context for all.

``python -m benchmarks.hosted_peers --json FILE [--quick]``. Same weights in bfloat16, a context of 2k
tokens, queries of 30 tokens and answers of 5, from 1, 8 and 32 clients that ask one query after the
other. Every server has its own cache of prompts on and has met the context before; while ours has its
turn the peer stands still. ``over_peers`` holds queries a second of ours over the peer's, medians
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
from manyicl_core.base_models.catalog import known_base_models
from manyicl_core.settings import get_settings

CONTEXT_TOKENS = 2048
CLIENTS = (1, 8, 32)

Rates = dict[str, dict[str, float]]
"""Queries a second by side and number of clients."""


@dataclass(frozen=True, slots=True)
class Side:
    """One model of a server, and how a new query to it reads."""

    name: str
    url: str
    query: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Peer:
    """A running peer, and its sides by the sides of ours that they are compared with."""

    server: Server
    sides: dict[str, Side]
    queries_a_client: int = 4


def main() -> int:
    """Measure and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--peer", choices=PEERS, action="append", help="only this one; may be given several times")
    arguments = parser.parse_args()
    count = 1 if arguments.quick else 5
    random_ = random.Random(0)
    tokens = random_tokens(random_, CONTEXT_TOKENS)
    rounds: dict[str, list[Rates]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        [adapter] = random_adapters(folder, 1)
        with running_engine(folder) as url:
            ours = {
                side: _our_side(side, url, Context(model, tokens), random_)
                for side, model in {"ours": known_base_models()[0].id, "ours_lora": adapter}.items()
            }
            for side in ours.values():
                warm_up(side, CLIENTS)
            for name_ in arguments.peer or PEERS:
                with PEERS[name_](folder, tokens, random_) as peer:
                    rounds[name_] = measure(ours, peer, count)
    result = summary(rounds)
    table = Table("side", *(f"{clients} clients" for clients in CLIENTS), title="milliseconds a query")
    for side, figures in result["milliseconds_a_query"].items():
        table.add_row(side, *(f"{value:.1f}" for value in figures.values()))
    Console().print(table, result["over_peers"])
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def _our_side(name: str, url: str, context: Context, random_: random.Random) -> Side:
    return Side(name, url, lambda: context.query(random_))


def _side(name: str, server: Server, model: str, tokens: list[int], random_: random.Random) -> Side:
    return Side(name, server.url, lambda: servers.body(model, tokens + random_tokens(random_, QUERY_TOKENS)))


@contextlib.contextmanager
def llama_cpp(folder: Path, tokens: list[int], random_: random.Random) -> Iterator[Peer]:
    """A slot a client, each with the context."""
    with servers.llama_cpp(folder, model_folder(), get_settings().threads, max(CLIENTS), tokens) as server:
        yield Peer(server, {"ours": _side("llama_cpp", server, "model", tokens, random_)})


@contextlib.contextmanager
def vllm(folder: Path, tokens: list[int], random_: random.Random) -> Iterator[Peer]:
    """The base model, and an adapter."""
    with servers.vllm(folder, model_folder(), {"lora": folder / "adapter-0"}) as server:
        base = _side("vllm", server, "base", tokens, random_)
        yield Peer(server, {"ours": base, "ours_lora": _side("vllm_lora", server, "lora", tokens, random_)})


@contextlib.contextmanager
def transformers_serve(folder: Path, tokens: list[int], random_: random.Random) -> Iterator[Peer]:
    """Takes texts, which are a little longer when they are read again."""
    model = model_folder()
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    start = tokenizer.decode(tokens)

    def query() -> bytes:
        text = start + tokenizer.decode(random_tokens(random_, QUERY_TOKENS))
        return servers.body(str(model), text, ignore_eos=False)

    with servers.transformers_serve(folder, model, get_settings().threads) as server:
        yield Peer(server, {"ours": Side("transformers_serve", server.url, query)}, queries_a_client=1)


PEERS = {"llama_cpp": llama_cpp, "vllm": vllm, "transformers_serve": transformers_serve}


def warm_up(side: Side, clients: tuple[int, ...]) -> None:
    """Let a server meet the context, and numbers of clients."""
    for count in (1, *clients):
        closed_loop(side.url, [[side.query()]] * count)


def measure(ours: dict[str, Side], peer: Peer, count: int) -> list[Rates]:
    """Rounds of both sides in turns, at each number of clients; ours sleeps while nobody asks."""
    try:
        for side in peer.sides.values():
            # One that takes minutes for many clients meets them in its round only.
            warm_up(side, CLIENTS if peer.queries_a_client > 1 else ())
        peer.server.stop_time()
        return [_round(ours, peer) for _ in range(count)]
    except Exception as error:
        error.add_note(peer.server.log.read_text(encoding="utf-8")[-4000:])
        raise


def _round(ours: dict[str, Side], peer: Peer) -> Rates:
    rates: Rates = {}
    for clients in CLIENTS:
        for name, theirs in peer.sides.items():
            rates.setdefault(name, {})[str(clients)] = _rate(ours[name], clients, 4)
            peer.server.go_on()
            rates.setdefault(theirs.name, {})[str(clients)] = _rate(theirs, clients, peer.queries_a_client)
            peer.server.stop_time()
    return rates


def _rate(side: Side, clients: int, queries_a_client: int) -> float:
    queries = queries_a_client * (6 if clients == 1 else 1)
    return rate(closed_loop(side.url, [[side.query() for _ in range(queries)] for _ in range(clients)]))


def summary(rounds: dict[str, list[Rates]]) -> dict[str, Any]:
    """Medians over the rounds; a peer's model with an adapter is compared with ours with one."""
    over_peers: dict[str, dict[str, float]] = {}
    milliseconds: dict[str, dict[str, float]] = {}
    for peer, rates in rounds.items():
        for side in rates[0]:
            ours = side.startswith("ours")
            name = f"{side} beside {peer}" if ours else side
            milliseconds[name] = {
                count: round(1000 / statistics.median(one[side][count] for one in rates), 1) for count in rates[0][side]
            }
            if not ours:
                beside = "ours_lora" if side.endswith("_lora") else "ours"
                over_peers[side] = {
                    count: round(statistics.median(one[beside][count] / one[side][count] for one in rates), 2)
                    for count in rates[0][side]
                }
    return {"over_peers": over_peers, "milliseconds_a_query": milliseconds, "rounds": rounds}


if __name__ == "__main__":
    sys.exit(main())
