"""A job's process beside the service."""

import os
import sys
from collections.abc import Iterator

import pytest

from manyicl_core.settings import get_settings
from manyicl_core.store.leases import Claim
from manyicl_core.store.tables import Job
from worker.heartbeat import Heartbeat
from worker.process import JobProcess

_WAITS_UNTIL_NICE = "import os, time\nwhile os.nice(0) != 19: time.sleep(0.01)"


@pytest.fixture
def default_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The settings as they are where the environment has none, whatever other tests have set."""
    monkeypatch.delenv("MANYICL_JOB_NICE", raising=False)
    get_settings.cache_clear()
    yield
    monkeypatch.undo()
    get_settings.cache_clear()


def test_a_jobs_process_steps_back_for_the_service(default_settings: None) -> None:
    command = [sys.executable, "-c", _WAITS_UNTIL_NICE]
    with JobProcess(command, dict(os.environ), Heartbeat(Claim(Job, "job", 1), 60)) as process:
        assert list(process.messages()) == []
