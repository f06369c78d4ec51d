"""Hosted answers while a job trains on the same processors, over HTTP.

``python -m benchmarks.beside_training --json FILE [--quick]``. One client asks one query after the
other behind a compiled context of 2k tokens: with the machine for the engine alone, beside a
trainer that steps back as the worker starts it (``polite``), and beside one that does not
(``pushing``), in turns. ``…_over_alone`` is the median time of a query over that alone in the same
round. ``training_share`` is what the polite trainer gets done beside queries that never stop, over
what it gets done without any.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.engine_under_load import Context, closed_loop, random_tokens, running_engine
from benchmarks.sample_jobs import pooled_task, speed_job
from manyicl_core.base_models.catalog import known_base_models
from manyicl_core.child_process import job_environment, spawn, stop
from manyicl_core.contract.progress import StepMetrics, parse
from manyicl_core.method.sequences import StreamSettings
from manyicl_core.settings import get_settings

CONTEXT_TOKENS = 2048
_SEQUENCE_TOKENS = 128
_MORE_STEPS_THAN_MADE = 100_000


class Trainer:
    """A trainer that goes on and on, and the tokens it has trained."""

    def __init__(self, folder: Path, nice: int) -> None:
        spec = speed_job([pooled_task()], StreamSettings(max_sequence_tokens=_SEQUENCE_TOKENS), _MORE_STEPS_THAN_MADE)
        (folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", "manyicl_core.training", str(folder)]
        self._log = folder / "trainer.log"
        with self._log.open("w", encoding="utf-8") as log:
            self._process = spawn(command, job_environment(dict(os.environ)), subprocess.PIPE, log, nice=nice)
        self.tokens = 0
        self._trains = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def wait(self) -> None:
        """Return when it has made a step."""
        if not self._trains.wait(600) or not self.tokens:
            raise RuntimeError(f"the trainer made no step:\n{self._log.read_text(encoding='utf-8')[-4000:]}")

    def end(self) -> None:
        """Stop it."""
        stop(self._process, 2)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = parse(line)
            if isinstance(message, StepMetrics):
                self.tokens += message.tokens
                self._trains.set()
        self._trains.set()


def main() -> int:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="one short round: a minute, too short for training_share")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_engine(Path(folder)) as url:
        result = measure(url, 1 if arguments.quick else 3, 20 if arguments.quick else 60)
    Console().print({key: value for key, value in result.items() if key != "rounds"})
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(url: str, rounds: int, queries: int) -> dict[str, Any]:
    """All situations in turns; medians over the rounds."""
    random_ = random.Random(0)
    context = Context(known_base_models()[0].id, random_tokens(random_, CONTEXT_TOKENS))

    def query_seconds() -> float:
        calls = closed_loop(url, [[context.query(random_) for _ in range(queries)]])
        return statistics.median(call.seconds for call in calls)

    closed_loop(url, [[context.compilation()]])
    query_seconds()
    measured: list[dict[str, float]] = []
    for _ in range(rounds):
        alone = query_seconds()
        with _trainer(get_settings().job_nice) as trainer:
            began, had = time.monotonic(), trainer.tokens
            polite = query_seconds()
            beside = (trainer.tokens - had) / (time.monotonic() - began)
            began, had = time.monotonic(), trainer.tokens
            time.sleep(10)
            undisturbed = (trainer.tokens - had) / (time.monotonic() - began)
        with _trainer(0):
            pushing = query_seconds()
        measured.append(
            {
                "alone_seconds": alone,
                "polite_seconds": polite,
                "pushing_seconds": pushing,
                "polite_over_alone": polite / alone,
                "pushing_over_alone": pushing / alone,
                "training_share": beside / undisturbed,
            }
        )
    medians = {key: round(statistics.median(one[key] for one in measured), 3) for key in measured[0]}
    return {**medians, "rounds": measured}


@contextmanager
def _trainer(nice: int) -> Iterator[Trainer]:
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(Path(folder), nice)
        try:
            trainer.wait()
            yield trainer
        finally:
            trainer.end()


if __name__ == "__main__":
    sys.exit(main())
