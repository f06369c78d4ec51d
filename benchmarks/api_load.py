"""The api under load, on one core, against a bare FastAPI route with one SELECT over the same pool.

``python -m benchmarks.api_load --json FILE [--quick]``. The load comes from h2load (``apt-get install
nghttp2-client``), 16 clients over HTTP/1.1, each asking again when it is answered. Both servers are
uvicorn with one process on the first core; they take turns, and database, broker and load share the
other cores. Ratios are medians over the rounds: ours over the bare route's in the same round, for
requests a second; the bare route's over ours for latencies, so that more is better everywhere. The
upload is also set against a bare route that takes the same body.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from openai import OpenAI
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from benchmarks.api_process import NOBODY, Api, running_api
from manyicl_core.child_process import spawn, stop
from manyicl_core.embedded import free_port
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Job
from tests.jobs import create_job
from tests.tiny_model import make_tiny_model

CLIENTS = 16
JOBS = 1000
MODEL = "benchmark/tiny-llama"
BOUNDARY = "a-boundary-of-the-benchmark"


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked, and how."""

    url: str
    headers: tuple[str, ...] = ()
    body: Path | None = None


def main() -> int:
    """Measure and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="three short rounds: two minutes")
    arguments = parser.parse_args()
    if shutil.which("h2load") is None:
        parser.error("h2load is missing; install it: apt-get install nghttp2-client")
    rounds, requests = (3, 1000) if arguments.quick else (9, 3000)
    api_core, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, others or [api_core])
    with tempfile.TemporaryDirectory(prefix="manyicl-load-") as name:
        figures = measure(Path(name), str(api_core), rounds, requests)
    table = Table("route", "requests/s", "p50 ms", "p99 ms", "rate ratio", "p50 ratio", "p99 ratio")
    for route, figure in figures.items():
        table.add_row(route, *(f"{value:.2f}" for value in list(figure.values())[:6]))
    Console().print(table)
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(folder: Path, core: str, rounds: int, requests: int) -> dict[str, dict[str, float]]:
    """Medians of every route, and its ratios to the bare one."""
    model = make_tiny_model(folder / "model")
    settings = {"model_folder": str(model), "base_model": MODEL}
    pinned = ["taskset", "--cpu-list", core, sys.executable, "-m"]
    command = [*pinned, "manyicl_core.cli.main", "api"]
    with running_api(folder, f"http://{NOBODY}", settings, command) as api, bare_server(folder, pinned) as bare:
        job_id = make_jobs(api)
        (folder / "upload").write_bytes(upload_body())
        multipart = f"content-type: multipart/form-data; boundary={BOUNDARY}"
        key = f"authorization: Bearer {api.api_key}"
        targets = {
            "bare": Target(f"{bare}/jobs/{job_id}"),
            "get_job": Target(f"{api.base_url}/fine_tuning/jobs/{job_id}", (key,)),
            "list_jobs": Target(f"{api.base_url}/fine_tuning/jobs", (key,)),
            "bare_upload": Target(f"{bare}/files/{job_id}", (multipart,), folder / "upload"),
            "post_file": Target(f"{api.base_url}/files", (key, multipart), folder / "upload"),
        }
        for target in targets.values():
            load(target, folder, requests // 5)  # warm
        measured = [
            {route: load(target, folder, requests) for route, target in list(targets.items())[:: -1 if turn % 2 else 1]}
            for turn in range(rounds)
        ]
    return summary(measured)


@contextmanager
def bare_server(folder: Path, pinned: list[str]) -> Iterator[str]:
    """The bare routes, served as ``manyicl api`` serves ours."""
    port = free_port()
    command = [*pinned, "uvicorn", "benchmarks.bare_api:app", "--port", str(port), "--no-access-log"]
    with (folder / "bare.log").open("w", encoding="utf-8") as output:
        process = spawn(command, dict(os.environ), output, output)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx2.get(url, timeout=2)
                break
            except httpx2.HTTPError:
                assert process.poll() is None, "the bare server ended"
                time.sleep(0.1)
        yield url
    finally:
        stop(process, 5)


def make_jobs(api: Api) -> str:
    """A real job and many copies of it; gives its id."""
    with OpenAI(base_url=api.base_url, api_key=api.api_key) as client:
        job_id = create_job(client, evaluate=False, model=MODEL).id
    columns = ", ".join(
        f'"{column.name}"' for column in Job.__table__.columns if column.name not in ("id", "created_at")
    )
    copies = text(
        f"INSERT INTO jobs (id, created_at, {columns}) "  # noqa: S608 - names of our own columns
        f"SELECT id || '-' || n, created_at - n * interval '1 second', {columns} "
        "FROM jobs, generate_series(1, :count) AS n WHERE id = :id"
    )
    with transaction() as session:
        session.execute(copies, {"count": JOBS - 1, "id": job_id})
    return job_id


def upload_body() -> bytes:
    """A form with a training file of 1 kB."""
    lines: list[str] = []
    while sum(map(len, lines)) < 1000:
        lines.append(json.dumps({"task": "sum", "input": f"{len(lines)} and 1", "output": str(len(lines) + 1)}) + "\n")
    disposition = "Content-Disposition: form-data; name="
    parts = [
        f'{disposition}"purpose"\r\n\r\nfine-tune',
        f'{disposition}"file"; filename="a.jsonl"\r\nContent-Type: application/octet-stream\r\n\r\n{"".join(lines)}',
    ]
    return ("".join(f"--{BOUNDARY}\r\n{part}\r\n" for part in parts) + f"--{BOUNDARY}--\r\n").encode()


def load(target: Target, folder: Path, requests: int) -> dict[str, float]:
    """Requests a second, and milliseconds of latency."""
    log = folder / "h2load.log"
    log.unlink(missing_ok=True)
    command = ["h2load", "--h1", f"--clients={CLIENTS}", f"--requests={requests}", f"--log-file={log}"]
    command += [f"--header={header}" for header in target.headers]
    command += [f"--data={target.body}"] if target.body is not None else []
    subprocess.run([*command, target.url], check=True, stdout=subprocess.DEVNULL)
    # Microseconds: since 1970 when it was asked, and until it was answered.
    rows = [tuple(map(int, line.split("\t"))) for line in log.read_text(encoding="utf-8").splitlines()]
    failed = [status for _, status, _ in rows if status != 200]
    assert not failed and len(rows) == requests, f"{target.url}: {len(rows)} answers, statuses {set(failed)}"
    seconds = (max(begun + took for begun, _, took in rows) - min(begun for begun, _, _ in rows)) / 1e6
    latencies = sorted(took / 1000 for _, _, took in rows)
    return {
        "requests_per_second": requests / seconds,
        "p50_milliseconds": statistics.median(latencies),
        "p99_milliseconds": latencies[int(len(latencies) * 0.99)],
    }


def summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds, of figures and of ratios within a round."""
    figures: dict[str, dict[str, float]] = {}
    for route in ("bare", "get_job", "list_jobs", "bare_upload", "post_file"):
        names = list(rounds[0][route])
        figures[route] = {name: statistics.median(one[route][name] for one in rounds) for name in names}
        figures[route] |= _ratios(rounds, route, "bare", "")
    figures["post_file"] |= _ratios(rounds, "post_file", "bare_upload", "_to_bare_upload")
    return figures


def _ratios(rounds: list[dict[str, dict[str, float]]], route: str, to: str, suffix: str) -> dict[str, Any]:
    """How a route compares; 1 is as good."""
    rates = [one[route]["requests_per_second"] / one[to]["requests_per_second"] for one in rounds]
    ratios = {f"requests_per_second_ratio{suffix}": statistics.median(rates)}
    for name in ("p50_milliseconds", "p99_milliseconds"):
        ratios[f"{name[:3]}_ratio{suffix}"] = statistics.median(one[to][name] / one[route][name] for one in rounds)
    return ratios


if __name__ == "__main__":
    sys.exit(main())
