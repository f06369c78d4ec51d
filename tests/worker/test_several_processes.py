"""The processes that train one job together end together."""

import os
import signal
import subprocess
from pathlib import Path

import psutil

from manyicl_core.child_process import spawn, stop
from manyicl_core.contract.progress import Started, StepMetrics, parse
from tests.unit.training.specs import make_spec
from worker.processes import training_command


def test_the_first_process_reports_and_all_end_with_their_launcher(tiny_model: Path, tmp_path: Path):
    spec = make_spec(tiny_model, token_budget=1_000_000, checkpoint_every=10_000)
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    command = training_command("manyicl_core.training", tmp_path, 2)
    launcher = spawn(command, {**os.environ, "CUDA_VISIBLE_DEVICES": ""}, stdout=subprocess.PIPE)
    try:
        assert launcher.stdout is not None
        messages = [parse(launcher.stdout.readline()) for _ in range(4)]
        ranks = psutil.Process(launcher.pid).children(recursive=True)
        assert len(ranks) == 2
        launcher.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(ranks, timeout=60)
        assert not alive
    finally:
        stop(launcher, grace_seconds=0)
        launcher.communicate()
    assert isinstance(messages[0], Started)
    assert [message.step for message in messages[1:] if isinstance(message, StepMetrics)] == [1, 2, 3]
