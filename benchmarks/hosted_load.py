"""Time to first token under load, and what happens beyond capacity, over HTTP with open-loop arrivals.

``python -m benchmarks.hosted_load --json FILE [--quick]``. Capacity is what closed-loop clients
get over one compiled context of 2k tokens. Then requests arrive at random (Poisson) at 0.5 and
0.9 of it, whatever the engine does: p50 and p99 of the time to the first token. At twice capacity:
the answers in full a second over capacity (``goodput_over_capacity``), and how soon the others
are refused with 429. Requests with any other end are ``lost``.
"""

import argparse
import asyncio
import json
import random
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
from manyicl_core.settings import get_settings

CONTEXT_TOKENS = 2048
CAPACITY_CLIENTS = 32


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a streamed request went, in seconds; ``first_token`` is None when it was refused."""

    status: int
    sent: float
    first_token: float | None
    done: float


def main() -> int:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="20 seconds a load instead of two minutes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_engine(Path(folder)) as url:
        result = measure(url, 20.0 if arguments.quick else 120.0)
    Console().print(result)
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(url: str, seconds: float) -> dict[str, Any]:
    """Capacity before and after, since a machine may change; the loads in between are shares of the first."""
    random_ = random.Random(0)
    context = Context(get_settings().base_model, random_tokens(random_, CONTEXT_TOKENS))
    closed_loop(url, [[context.compilation()]])
    closed_loop(url, [[context.query(random_)]] * CAPACITY_CLIENTS)
    capacity = _capacity(url, context, random_)
    result: dict[str, Any] = {"capacity_queries_per_second": round(capacity, 2), "seconds_a_load": seconds}
    for share in (0.5, 0.9):
        arrivals = asyncio.run(_open_loop(url, context, random_, share * capacity, seconds))
        result[f"at_{share}_of_capacity"] = _first_tokens(arrivals)
    result["at_2_of_capacity"] = _overload(
        asyncio.run(_open_loop(url, context, random_, 2 * capacity, seconds)), capacity, seconds
    )
    result["goodput_over_capacity"] = result["at_2_of_capacity"]["goodput_over_capacity"]
    result["capacity_at_the_end"] = round(_capacity(url, context, random_), 2)
    return result


def _capacity(url: str, context: Context, random_: random.Random) -> float:
    return rate(closed_loop(url, [[context.query(random_) for _ in range(6)] for _ in range(CAPACITY_CLIENTS)]))


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


def _first_tokens(arrivals: list[Arrival]) -> dict[str, float]:
    times = [arrival.first_token for arrival in arrivals if arrival.first_token is not None]
    return {
        "requests": len(arrivals),
        "refused": sum(arrival.status == httpx2.codes.TOO_MANY_REQUESTS for arrival in arrivals),
        "lost": sum(arrival.status not in (httpx2.codes.OK, httpx2.codes.TOO_MANY_REQUESTS) for arrival in arrivals),
        "first_token_seconds_p50": _percentile(times, 50),
        "first_token_seconds_p99": _percentile(times, 99),
    }


def _overload(arrivals: list[Arrival], capacity: float, seconds: float) -> dict[str, float]:
    """Goodput over the time in which requests arrived; answers that came later do not count."""
    start = min(arrival.sent for arrival in arrivals)
    answered = [arrival for arrival in arrivals if arrival.status == httpx2.codes.OK]
    refused = [arrival for arrival in arrivals if arrival.status == httpx2.codes.TOO_MANY_REQUESTS]
    goodput = sum(arrival.done < start + seconds for arrival in answered) / seconds
    waits = [arrival.done - arrival.sent for arrival in refused]
    return {
        **_first_tokens(arrivals),
        "goodput_queries_per_second": round(goodput, 2),
        "goodput_over_capacity": round(goodput / capacity, 3),
        "refusal_seconds_p50": _percentile(waits, 50),
        "refusal_seconds_p99": _percentile(waits, 99),
        "refusal_seconds_most": round(max(waits, default=0.0), 4),
        "refusals_within_100_ms": round(sum(wait < 0.1 for wait in waits) / max(len(waits), 1), 4),
    }


def _percentile(values: list[float], percent: float) -> float:
    return round(float(np.percentile(values, percent)), 4) if values else 0.0


if __name__ == "__main__":
    sys.exit(main())
