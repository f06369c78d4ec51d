"""What a child process writes to standard error, as lines of this process's log."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import structlog

from manyicl_core.settings import get_settings

_log = structlog.get_logger(__name__)


@contextmanager
def logged_stderr() -> Iterator[IO[str] | None]:
    """Give what a child's standard error is to be; it ends when all that hold it have ended.

    Where logs are JSON, libraries' warnings and tracebacks become events of their own. Where people read them, the
    child writes beside this process.
    """
    if not get_settings().log_json:
        yield None
        return
    reading, writing = os.pipe()
    lines = os.fdopen(reading, encoding="utf-8", errors="replace")
    threading.Thread(target=_log_lines, args=(lines,), name="stderr", daemon=True).start()
    with os.fdopen(writing, "w", encoding="utf-8") as stderr:
        yield stderr


def _log_lines(lines: IO[str]) -> None:
    with lines:
        for line in lines:
            if text := line.strip():
                _log.info("process_said", text=text)
