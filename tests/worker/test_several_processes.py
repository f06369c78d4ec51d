"""The processes that train one job together end together."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from manyicl_core.child_process import spawn, stop
from manyicl_core.contract.progress import Failed, Started, StepMetrics, parse
from tests.unit.training.specs import make_spec
from worker.processes import training_command


@contextmanager
def launched(model: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A long job in two processes that has made three steps."""
    spec = make_spec(model, token_budget=500_000, checkpoint_every=10_000)
    (folder / "spec.json").write_text(spec.model_dump_json())
    command = training_command("manyicl_core.training", folder, 2)
    launcher = spawn(command, {**os.environ, "CUDA_VISIBLE_DEVICES": ""}, stdout=subprocess.PIPE)
    try:
        assert launcher.stdout is not None
        messages = [parse(launcher.stdout.readline()) for _ in range(4)]
        assert isinstance(messages[0], Started)
        assert [message.step for message in messages[1:] if isinstance(message, StepMetrics)] == [1, 2, 3]
        yield launcher, psutil.Process(launcher.pid).children(recursive=True)
    finally:
        stop(launcher, grace_seconds=0)
        launcher.communicate()


def test_the_first_process_reports_and_all_end_with_their_launcher(tiny_model: Path, tmp_path: Path):
    with launched(tiny_model, tmp_path) as (launcher, ranks):
        assert len(ranks) == 2
        launcher.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(ranks, timeout=60)
        assert not alive


def test_the_loss_of_one_process_is_no_failure_of_the_job(tiny_model: Path, tmp_path: Path):
    with launched(tiny_model, tmp_path) as (launcher, ranks):
        next(rank for rank in ranks if rank.environ()["RANK"] == "1").kill()
        assert launcher.stdout is not None
        last = [parse(line) for line in launcher.stdout]
        assert not [message for message in last if isinstance(message, Failed)]
        assert launcher.wait() != 0
