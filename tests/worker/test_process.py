"""A job's process beside the service."""

import os
import sys

from manyicl_core.store.leases import Claim
from manyicl_core.store.tables import Job
from worker.heartbeat import Heartbeat
from worker.process import JobProcess

_WAITS_UNTIL_NICE = "import os, time\nwhile os.nice(0) != 19: time.sleep(0.01)"


def test_a_jobs_process_steps_back_for_the_service():
    command = [sys.executable, "-c", _WAITS_UNTIL_NICE]
    with JobProcess(command, dict(os.environ), Heartbeat(Claim(Job, "job", 1), 60)) as process:
        assert list(process.messages()) == []
