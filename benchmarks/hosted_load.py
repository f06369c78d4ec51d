"""Time to first token under load, and what happens beyond capacity, over HTTP with open-loop arrivals.

``python -m benchmarks.hosted_load --json FILE [--quick]``. Capacity is what closed-loop clients
get over one compiled context of 2k tokens. Then requests arrive at random (Poisson) at 0.5 and
0.9 of it, whatever the engine does: p50 and p99 of the time to the first token. At twice capacity:
the answers in full a second over capacity (``goodput_over_capacity``), and how soon the others
are refused with 429. Requests with any other end are ``lost``.

A machine's speed may change within minutes: the loads come in turns, two minutes each in all, and
each is a share of the capacity just before it; goodput is over the mean of that and the next one.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from rich.console import Console

from benchmarks.engine_under_load import Context, closed_loop, random_tokens, rate, running_engine
from benchmarks.light_client import LightClient
from manyicl_core.base_models.catalog import known_base_models

CONTEXT_TOKENS = 2048
CAPACITY_CLIENTS = 32
_QUERIES_A_CLIENT = 10


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a streamed request went, in seconds; ``first_token`` is None when it was refused."""

    status: int
    sent: float
    first_token: float | None
    done: float


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that arrived within ``seconds``, and what the engine's ``capacity`` was around them."""

    arrivals: list[Arrival]
    seconds: float
    capacity: float

    def goodput(self, from_start: bool = False) -> float:
        """Whole answers a second over capacity, while requests arrived.

        The engine is empty before: by default the time until the first answer does not count.
        """
        start = min(arrival.sent for arrival in self.arrivals)
        end = start + self.seconds
        done = [arrival.done for arrival in self.arrivals if arrival.status == httpx2.codes.OK and arrival.done < end]
        begin = start if from_start else min(done)
        return sum(begin < time_ for time_ in done) / (end - begin) / self.capacity


def main() -> int:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="20 seconds a load, once, instead of four times 30")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_engine(Path(folder)) as url:
        result = measure(url, 1 if arguments.quick else 4, 20.0 if arguments.quick else 30.0)
    Console().print(result)
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(url: str, rounds: int, seconds: float) -> dict[str, Any]:
    """All loads in turns, ``seconds`` each, with the capacity in between."""
    random_ = random.Random(0)
    context = Context(known_base_models()[0].id, random_tokens(random_, CONTEXT_TOKENS))
    closed_loop(url, [[context.compilation()]])
    closed_loop(url, [[context.query(random_)]] * CAPACITY_CLIENTS)
    capacities = [_capacity(url, context, random_)]
    loads: dict[float, list[Load]] = {share: [] for share in (0.5, 0.9, 2.0)}
    for _ in range(rounds):
        for share, made in loads.items():
            before = capacities[-1]
            arrivals = asyncio.run(_open_loop(url, context, random_, share * before, seconds))
            capacities.append(_capacity(url, context, random_))
            made.append(Load(arrivals, seconds, (before + capacities[-1]) / 2))
    overload = _overload(loads[2.0])
    return {
        "capacities_queries_per_second": [round(capacity, 2) for capacity in capacities],
        "seconds_a_load": rounds * seconds,
        **{f"at_{share:g}_of_capacity": _first_tokens(made) for share, made in loads.items()},
        "overload": overload,
        "goodput_over_capacity": overload["goodput_over_capacity"],
    }


def _capacity(url: str, context: Context, random_: random.Random) -> float:
    clients = [[context.query(random_) for _ in range(_QUERIES_A_CLIENT)] for _ in range(CAPACITY_CLIENTS)]
    return rate(closed_loop(url, clients))


async def _open_loop(
    url: str, context: Context, random_: random.Random, per_second: float, seconds: float
) -> list[Arrival]:
    """Requests at random times, on average ``per_second``, for ``seconds``; waits for all answers."""
    # All is made beforehand: the clients must not be what is slow.
    due = list(accumulate(random_.expovariate(per_second) for _ in range(int(2 * per_second * seconds) + 10)))
    bodies = [context.query(random_, stream=True) for _ in takewhile(lambda time_: time_ < seconds, due)]
    http = LightClient(url)
    start = time.perf_counter()
    asked: list[asyncio.Task[Arrival]] = []
    for body, after in zip(bodies, due, strict=False):
        await asyncio.sleep(max(0.0, start + after - time.perf_counter()))
        asked.append(asyncio.create_task(_ask(http, body)))
    arrivals = await asyncio.gather(*asked)
    http.close()
    return list(arrivals)


async def _ask(http: LightClient, body: bytes) -> Arrival:
    reply = await http.post("/v1/completions", body)
    # An answer's first byte is its first token's: nothing is streamed before it.
    first_token = reply.first_byte - reply.sent if reply.status == httpx2.codes.OK else None
    return Arrival(reply.status, reply.sent, first_token, reply.done)


def _first_tokens(loads: list[Load]) -> dict[str, float]:
    arrivals = [arrival for load in loads for arrival in load.arrivals]
    times = [arrival.first_token for arrival in arrivals if arrival.first_token is not None]
    return {
        "requests": len(arrivals),
        "refused": sum(arrival.status == httpx2.codes.TOO_MANY_REQUESTS for arrival in arrivals),
        "lost": sum(arrival.status not in (httpx2.codes.OK, httpx2.codes.TOO_MANY_REQUESTS) for arrival in arrivals),
        "first_token_seconds_p50": _percentile(times, 50),
        "first_token_seconds_p99": _percentile(times, 99),
    }


def _overload(loads: list[Load]) -> dict[str, Any]:
    goodputs = [load.goodput() for load in loads]
    from_start = [load.goodput(from_start=True) for load in loads]
    refused = [
        arrival for load in loads for arrival in load.arrivals if arrival.status == httpx2.codes.TOO_MANY_REQUESTS
    ]
    waits = [arrival.done - arrival.sent for arrival in refused]
    return {
        "goodput_over_capacity": round(statistics.median(goodputs), 3),
        "goodput_over_capacity_from_start": round(statistics.median(from_start), 3),
        "goodputs_over_capacity": [round(goodput, 3) for goodput in goodputs],
        "refusal_seconds_p50": _percentile(waits, 50),
        "refusal_seconds_p99": _percentile(waits, 99),
        "refusal_seconds_most": round(max(waits, default=0.0), 4),
        "refusals_within_100_ms": round(sum(wait < 0.1 for wait in waits) / max(len(waits), 1), 4),
    }


def _percentile(values: list[float], percent: float) -> float:
    return round(float(np.percentile(values, percent)), 4) if values else 0.0


if __name__ == "__main__":
    sys.exit(main())
