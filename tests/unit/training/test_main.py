"""The trainer as a process sees it: a folder in, lines out."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from manyicl_core.contract.progress import CheckpointSaved, Failed, Started, StepMetrics, Trained, parse
from manyicl_core.contract.train_spec import TrainSpec
from manyicl_core.training.__main__ import main
from tests.unit.training.specs import adapter_bytes, checkpoint_of, make_spec, steps_of, stopping_early


def run(folder: Path, capfd: pytest.CaptureFixture[str]):
    capfd.readouterr()
    status = main(folder)
    return status, [parse(line) for line in capfd.readouterr().out.splitlines()]


def test_a_spec_is_trained_and_a_checkpoint_beside_it_gone_on_from(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    spec = make_spec(tiny_model)
    steps_of(spec, tmp_path / "whole")
    for name, first_step in (("fresh", 0), ("resumed", 4)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "spec.json").write_text(spec.model_dump_json())
        if first_step:
            shutil.copytree(tmp_path / "whole" / "checkpoints" / "step-000004", folder / "checkpoint")
        status, messages = run(folder, capfd)
        assert status == 0
        assert isinstance(messages[0], Started)
        assert messages[0].step == first_step
        assert isinstance(messages[-1], Trained)
        assert adapter_bytes(folder) == adapter_bytes(tmp_path / "whole")


def test_the_best_checkpoint_beside_a_spec_gives_the_weights_of_a_run_that_stops_early(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    spec = stopping_early(tiny_model, checkpoint_every=1)
    last = len(steps_of(spec, tmp_path / "whole"))
    folder = tmp_path / "resumed"
    folder.mkdir()
    (folder / "spec.json").write_text(spec.model_dump_json())
    shutil.copytree(checkpoint_of(tmp_path / "whole", last - 1), folder / "checkpoint")
    shutil.copytree(checkpoint_of(tmp_path / "whole", last - 2), folder / "best")
    status, messages = run(folder, capfd)
    assert status == 0
    assert isinstance(messages[-1], Trained)
    assert messages[-1].step == last - 2
    assert adapter_bytes(folder) == adapter_bytes(tmp_path / "whole")


def test_a_checkpoint_of_another_job_ends_in_a_failure_with_a_code(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    steps_of(make_spec(tiny_model, seed=1), tmp_path / "other")
    shutil.move(tmp_path / "other" / "checkpoints" / "step-000002", tmp_path / "checkpoint")
    (tmp_path / "spec.json").write_text(make_spec(tiny_model).model_dump_json())
    status, [failed] = run(tmp_path, capfd)
    assert status == 1
    assert isinstance(failed, Failed)
    assert failed.code == "engine_error"
    assert "CheckpointMismatch" in failed.message


def start(spec: TrainSpec, folder: Path) -> subprocess.Popen[str]:
    """A trainer in a process of its own, as a worker starts it."""
    folder.mkdir(exist_ok=True)
    (folder / "spec.json").write_text(spec.model_dump_json())
    return subprocess.Popen([sys.executable, "-m", "manyicl_core.training", folder], stdout=subprocess.PIPE, text=True)


def test_a_trainer_that_is_told_to_end_leaves_a_checkpoint_to_go_on_from(tiny_model: Path, tmp_path: Path):
    spec = make_spec(tiny_model, checkpoint_every=1000)
    with start(spec, tmp_path / "whole") as undisturbed, start(spec, tmp_path / "disturbed") as process:
        assert process.stdout is not None
        messages = [parse(process.stdout.readline()), parse(process.stdout.readline())]
        process.terminate()
        messages += [parse(line) for line in process.stdout]
        undisturbed.communicate()
    assert process.returncode == 1
    *_, done, saved = messages
    assert isinstance(done, StepMetrics)
    assert isinstance(saved, CheckpointSaved)
    assert saved.step == done.step < 6

    Path(saved.folder).rename(tmp_path / "disturbed" / "checkpoint")
    with start(spec, tmp_path / "disturbed") as process:
        assert process.stdout is not None
        goes_on = parse(process.stdout.readline())
        process.communicate()
    assert isinstance(goes_on, Started)
    assert (goes_on.step, process.returncode) == (saved.step, 0)
    assert adapter_bytes(tmp_path / "disturbed") == adapter_bytes(tmp_path / "whole")
