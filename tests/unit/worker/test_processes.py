"""How many processes train a job."""

import sys
from pathlib import Path

import pytest

from worker.processes import training_command, visible_gpus


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose nvidia-smi lists two GPUs, one of them in two instances."""
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho '  MIG 1g.5gb Device 0: y'\necho 'GPU 1: A (UUID: z)'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("chosen", "count"), [(None, 2), ("1", 1), ("0, 1", 2), ("", 0), ("-1", 0)])
def test_a_worker_counts_the_gpus_that_it_may_use(monkeypatch: pytest.MonkeyPatch, chosen: str | None, count: int):
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == count


def test_a_machine_without_nvidia_smi_has_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == 0


@pytest.mark.usefixtures("two_gpus")
def test_each_gpu_gets_a_process_unless_the_setting_says_how_many(tmp_path: Path):
    launched = training_command("trainer", tmp_path, "auto")
    assert launched[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert launched[3:] == ["--standalone", "--nproc-per-node=2", "--max-restarts=0", "-m", "trainer", str(tmp_path)]
    assert "--nproc-per-node=3" in training_command("trainer", tmp_path, 3)
    assert training_command("trainer", tmp_path, 1) == [sys.executable, "-m", "trainer", str(tmp_path)]
