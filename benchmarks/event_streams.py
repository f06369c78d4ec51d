"""A thousand event streams open at once: memory a stream, and how soon an event reaches its clients.

``python -m benchmarks.event_streams --json FILE [--quick]``. One api process with all streams, each
of a running job of its own, then all of the same job. Metric events are written at 20 a second,
then, where each goes to a thousand clients, at 2; the delay counts from just before the row is
written until a client has it. Memory is the api's resident set with all streams open, less that
before them.
"""

import argparse
import asyncio
import json
import random
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psycopg
from rich.console import Console

from benchmarks.api_process import HOST, Api, Database, api_over, make_database, running_postgres

STREAMS = 1_000
EVENTS_PER_SECOND, SHARED_EVENTS_PER_SECOND = 20, 2
_OPENED_AT_ONCE = 20

_JOBS = """
INSERT INTO jobs (id, project_id, state, fence, infrastructure_failures, base_model, seed, training_file,
                  hyperparameters, options, metadata, dataset, models, result_files)
SELECT 'ftjob-' || number, %(project)s, 'running', 1, 0, 'base', 0, 'file-x', '{}', '{}', '{}', 'none', '{}', '[]'
FROM generate_series(1, %(jobs)s) AS number
"""
_EVENT = """
INSERT INTO job_events (id, job_id, level, type, message, data)
VALUES (%(id)s, %(job)s, 'info', 'metrics', 'Step 17/300: training loss=1.234, 5678 tokens/s', %(data)s)
"""
_METRICS = json.dumps(
    {
        "step": 17,
        "train_loss": 1.2345678,
        "train_mean_token_accuracy": 0.654321,
        "learning_rate": 0.0005,
        "loss_by_answer": {str(2**power): 1.2345678 for power in range(6)},
        "accuracy_by_answer": {str(2**power): 0.654321 for power in range(6)},
    }
)


@dataclass(slots=True)
class Delays:
    """When each event was written, and how long each client waited for it, in seconds."""

    written: dict[str, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def received(self, event_id: str) -> None:
        """A client has the event."""
        self.seconds.append(time.perf_counter() - self.written[event_id])


def main() -> int:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="15 seconds of events instead of a minute")
    arguments = parser.parse_args()
    # A descriptor a stream, here and in the api, which inherits the limit.
    resource.setrlimit(resource.RLIMIT_NOFILE, (4 * STREAMS, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    seconds = 15.0 if arguments.quick else 60.0
    result: dict[str, float] = {"streams": STREAMS, "seconds": seconds}
    with tempfile.TemporaryDirectory(prefix="manyicl-streams-") as name, running_postgres(Path(name)) as postgres:
        database = make_database(postgres.url, Path(name), {})
        *jobs, another = [f"ftjob-{number}" for number in range(1, STREAMS + 2)]
        with psycopg.connect(database.url, autocommit=True) as connection:
            connection.execute(_JOBS, {"project": database.project_id, "jobs": STREAMS + 1})
        for what, followed, per_second in (
            ("own_job", jobs, EVENTS_PER_SECOND),
            ("same_job", [another] * STREAMS, SHARED_EVENTS_PER_SECOND),
        ):
            with api_over(database, Path(name)) as api:
                figures = asyncio.run(_measure(api, database, followed, per_second, seconds))
            result |= {f"{what}_{key}": value for key, value in figures.items()}
    Console().print(result)
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


async def _measure(
    api: Api, database: Database, jobs: Sequence[str], per_second: float, seconds: float
) -> dict[str, float]:
    delays = Delays()
    memory = _resident_bytes(api.pid)
    room = asyncio.Semaphore(_OPENED_AT_ONCE)
    opened = [asyncio.Event() for _ in jobs]
    streams = [
        asyncio.create_task(_follow(api, job, room, ready, delays)) for job, ready in zip(jobs, opened, strict=True)
    ]
    for ready in opened:
        await ready.wait()
    await asyncio.sleep(2)
    memory = _resident_bytes(api.pid) - memory
    busy = _cpu_seconds(api.pid)
    await asyncio.to_thread(_write_events, database, jobs, per_second, seconds, delays)
    await asyncio.sleep(2)
    busy = _cpu_seconds(api.pid) - busy
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    expected = sum(jobs.count(event.split("_")[0]) for event in delays.written)
    return {
        "events_per_second": per_second,
        "memory_bytes_per_stream": round(memory / len(jobs)),
        "events_received": len(delays.seconds),
        "events_lost": expected - len(delays.seconds),
        "delay_seconds_p50": round(float(np.percentile(delays.seconds, 50)), 4),
        "delay_seconds_p99": round(float(np.percentile(delays.seconds, 99)), 4),
        "delay_seconds_most": round(max(delays.seconds), 4),
        "api_cores_busy": round(busy / (seconds + 2), 3),
    }


async def _follow(api: Api, job: str, room: asyncio.Semaphore, ready: asyncio.Event, delays: Delays) -> None:
    """One client, as light as can be: a thousand of an HTTP library's would be what is slow."""
    async with room:
        reader, writer = await asyncio.open_connection(HOST, api.port)
        head = [f"GET /v1/fine_tuning/jobs/{job}/events?stream=true HTTP/1.1", f"host: {HOST}"]
        head += [f"{name}: {value}" for name, value in api.headers.items()]
        writer.write("\r\n".join([*head, "", ""]).encode())
        status = await reader.readline()
        assert b" 200 " in status, status
        ready.set()
    try:
        while line := await reader.readline():
            if line.startswith(b"id: "):
                delays.received(line[4:].strip().decode())
    finally:
        writer.close()


def _write_events(database: Database, jobs: Sequence[str], per_second: float, seconds: float, delays: Delays) -> None:
    random_ = random.Random(0)
    pause = threading.Event()
    with psycopg.connect(database.url, autocommit=True) as connection:
        for number in range(int(seconds * per_second)):
            job = random_.choice(jobs)
            event_id = f"{job}_{number}"
            delays.written[event_id] = time.perf_counter()
            connection.execute(_EVENT, {"id": event_id, "job": job, "data": _METRICS})
            pause.wait(random_.expovariate(per_second))


def _resident_bytes(pid: int) -> int:
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def _cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / 100


if __name__ == "__main__":
    sys.exit(main())
