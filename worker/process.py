"""A trainer or evaluation process, and the progress that it reports."""

import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from types import TracebackType

from manyicl_core.child_process import job_environment, spawn, stop
from manyicl_core.contract.progress import Message, parse
from manyicl_core.settings import get_settings
from worker import shutdown
from worker.heartbeat import Heartbeat
from worker.process_log import logged_stderr

_GRACE_SECONDS = 2.0
_POLL_SECONDS = 0.2


class ProcessDied(Exception):
    """The process ended without saying why: it was stopped, or killed from outside."""


class JobProcess:
    """Runs while the ``with`` block runs, and no longer than its heartbeat allows."""

    def __init__(self, command: list[str], environment: dict[str, str], heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat
        with logged_stderr() as stderr:
            self._process = spawn(
                command, job_environment(environment), subprocess.PIPE, stderr, nice=get_settings().job_nice
            )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, name="progress", daemon=True).start()

    def __enter__(self) -> "JobProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop(self._process, _GRACE_SECONDS)

    def messages(self) -> Iterator[Message]:
        """What the process reports, until it ends well.

        Raises:
            ProcessDied: it ended otherwise, or the heartbeat asked for its end.
        """
        asked_to_end = False
        while True:
            if self._heartbeat.lost or self._heartbeat.cancelled:
                stop(self._process, _GRACE_SECONDS)
                raise ProcessDied("stopped")
            if shutdown.is_asked() and not asked_to_end:
                # A trainer leaves a checkpoint after the step that it is in; others end.
                self._process.terminate()
                asked_to_end = True
            try:
                line = self._lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if line is None:
                break
            yield parse(line)
        if status := self._process.wait():
            raise ProcessDied(_how(status))

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)


def _how(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"exit status {status}"
    name = f"signal {-status}, {signal.strsignal(-status)}"
    return f"{name}, as the kernel sends it when memory runs out" if -status == signal.SIGKILL else name
