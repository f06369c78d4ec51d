"""List pages of jobs with a million jobs in the table against a thousand, over HTTP.

``python -m benchmarks.list_pages --json FILE [--quick]``. Two databases of one private PostgreSQL,
with an api process each; the same client asks them in turns for pages of 20 jobs at random places,
and for the 20 jobs that share a value in their metadata. All jobs are one project's.
``--quick`` has 100,000 jobs and fewer pages.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
import psycopg
from psycopg import sql
from rich.console import Console

from benchmarks.api_process import api_over, make_database, running_postgres
from manyicl_core.embedded import EmbeddedPostgres

FEW, MANY = 1_000, 1_000_000
PAGE = 20

_FILL = """
INSERT INTO jobs (id, project_id, created_at, state, fence, infrastructure_failures, finished_at, base_model, seed,
                  training_file, hyperparameters, options, metadata, dataset, models, result_files)
SELECT 'ftjob-' || md5(number::text), %(project)s, now() - number * interval '1 second', 'succeeded', 1, 0, now(),
       'base', 0, 'file-x', '{"n_epochs": 3}', '{"objective": "many_icl"}',
       jsonb_build_object('run', (number %% (%(jobs)s / %(page)s))::text), 'none', '{}', '[]'
FROM generate_series(1, %(jobs)s) AS number
"""


@dataclass(frozen=True, slots=True)
class Side:
    """An api over a database with so many jobs."""

    http: httpx2.Client
    ids: list[str]
    runs: int


Query = Callable[[Side, random.Random], dict[str, str | int]]


def main() -> int:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="100,000 jobs and 500 pages: two minutes")
    arguments = parser.parse_args()
    many, pages = (100_000, 500) if arguments.quick else (MANY, 5_000)
    with tempfile.TemporaryDirectory(prefix="manyicl-pages-") as name, ExitStack() as stack:
        postgres = stack.enter_context(running_postgres(Path(name)))
        few = stack.enter_context(_running_side(postgres, Path(name), "few", FEW))
        lot = stack.enter_context(_running_side(postgres, Path(name), "many", many))
        result: dict[str, float] = {"jobs_few": FEW, "jobs_many": many, "pages": pages, "page_jobs": PAGE}
        result |= {f"page_{key}": value for key, value in _compare(few, lot, pages, _anywhere).items()}
        result |= {f"filtered_{key}": value for key, value in _compare(few, lot, pages, _filtered).items()}
    Console().print(result)
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def _compare(few: Side, many: Side, pages: int, query: Query) -> dict[str, float]:
    """Seconds a page of both sides, who take turns; the first pages of each are not counted."""
    random_ = random.Random(0)
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(pages + 100):
        for side, times in zip((few, many), seconds, strict=True):
            started = time.perf_counter()
            response = side.http.get("/fine_tuning/jobs", params=query(side, random_))
            took = time.perf_counter() - started
            response.raise_for_status()
            if number >= 100:
                times.append(took)
    figures: dict[str, float] = {}
    for percent in (50, 99):
        values = [float(np.percentile(times, percent)) for times in seconds]
        figures |= {f"few_p{percent}_seconds": round(values[0], 5), f"many_p{percent}_seconds": round(values[1], 5)}
        figures[f"p{percent}_ratio"] = round(values[1] / values[0], 3)
    return figures


def _anywhere(side: Side, random_: random.Random) -> dict[str, str | int]:
    return {"limit": PAGE, "after": random_.choice(side.ids)}


def _filtered(side: Side, random_: random.Random) -> dict[str, str | int]:
    return {"limit": PAGE, "metadata[run]": str(random_.randrange(side.runs))}


@contextmanager
def _running_side(postgres: EmbeddedPostgres, folder: Path, name: str, jobs: int) -> Iterator[Side]:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    database = make_database(postgres.url.replace("/postgres?", f"/{name}?"), folder, {})
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(_FILL, {"project": database.project_id, "jobs": jobs, "page": PAGE})
        connection.execute("VACUUM ANALYZE")
        ids = [row[0] for row in connection.execute("SELECT id FROM jobs ORDER BY random() LIMIT 10000")]
    with api_over(database, folder) as api, httpx2.Client(base_url=api.base_url, headers=api.headers) as http:
        yield Side(http, ids, jobs // PAGE)


if __name__ == "__main__":
    sys.exit(main())
