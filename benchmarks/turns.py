"""Processes that compute in turns, each a step when it is told to. Standard library only.

A side is a long-lived child process. It loads, reports that it is ready, and then makes one step
for every line that it reads, so that of two sides only one computes at a time and both meet the
same state of the machine. Peers import this module from environments of their own.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self


class Side:
    """The parent's end: start a child, have it make steps, end it.

    Args:
        command: what to run, in the repository's root.
        log: where the child's standard error goes.
        environment: variables to set beside this process's own.
    """

    def __init__(self, command: list[str], log: Path, environment: dict[str, str]) -> None:
        self._log = log
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **environment},
                cwd=Path(__file__).resolve().parents[1],
            )
        self.ready = self._report()

    def step(self) -> dict[str, Any]:
        """Let the child make one step; its report."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._report()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _report(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            log = self._log.read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"the side ended with status {self._process.wait()}:\n{log[-4000:]}")
        report: dict[str, Any] = json.loads(line)
        return report


class Channel:
    """The child's end. Make it before anything prints: it moves standard output to standard error."""

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._started = self._worked = 0.0

    def wait(self) -> None:
        """Wait for one's turn; exits when the parent has gone."""
        if not sys.stdin.readline():
            sys.exit()
        self._started, self._worked = time.perf_counter(), time.process_time()

    def report(self, **figures: Any) -> None:
        """End one's turn; its seconds, of the clock and of the processors, and the peak resident set are added."""
        measured = {
            "seconds": time.perf_counter() - self._started,
            "cpu_seconds": time.process_time() - self._worked,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        print(json.dumps({**measured, **figures}), file=self._stream, flush=True)
