"""A child's words are events of the worker's log."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from manyicl_core.settings import get_settings
from worker.process_log import logged_stderr

SAY = [sys.executable, "-c", "import sys; print('Warning: first\\n\\nsecond', file=sys.stderr)"]


@pytest.fixture
def json_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MANYICL_LOG_JSON", "true")
    get_settings.cache_clear()
    yield
    monkeypatch.undo()
    get_settings.cache_clear()


def test_each_line_of_a_child_is_an_event(json_logs: None) -> None:
    with capture_logs() as logs:
        with logged_stderr() as stderr:
            process = subprocess.Popen(SAY, stderr=stderr)
        process.wait()
        while len(logs) < 2:
            time.sleep(0.01)
    assert [(event["event"], event["text"]) for event in logs] == [
        ("process_said", "Warning: first"),
        ("process_said", "second"),
    ]


def test_where_people_read_the_log_a_child_writes_beside_the_worker() -> None:
    with logged_stderr() as stderr:
        assert stderr is None
