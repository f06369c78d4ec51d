"""A resumed run is, byte for byte, the one that was never interrupted."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from manyicl_core.contract.progress import Started
from manyicl_core.contract.train_spec import LoraSpec
from manyicl_core.training import checkpoint, trainer
from manyicl_core.training.checkpoint import CheckpointMismatch
from manyicl_core.training.trainer import train
from tests.unit.training.specs import MOODS, PUBLIC_ID, adapter_bytes, make_spec, steps_of


def checkpoint_of(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:06d}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_from_any_checkpoint_ends_in_the_same_bytes(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
):
    monkeypatch.setattr(trainer, "compute_dtype", lambda _: dtype)
    spec = make_spec(tiny_model)
    whole = steps_of(spec, tmp_path / "whole")
    assert len(whole) > 4
    for done in (2, 4):
        torch.manual_seed(done)
        resumed = steps_of(spec, tmp_path / f"from {done}", checkpoint_of(tmp_path / "whole", done))
        assert resumed == whole[done:]
        assert adapter_bytes(tmp_path / f"from {done}") == adapter_bytes(tmp_path / "whole")
    assert checkpoint_of(tmp_path / "from 2", 4).exists(), "a resumed run saves checkpoints too"


def test_a_resumed_run_says_where_it_goes_on(tiny_model: Path, tmp_path: Path):
    spec = make_spec(tiny_model)
    steps_of(spec, tmp_path)
    first = next(iter(train(spec, tmp_path, checkpoint_of(tmp_path, 4))))
    assert isinstance(first, Started)
    assert first.step == 4


def test_another_place_of_the_model_and_other_pauses_change_nothing(tiny_model: Path, tmp_path: Path):
    steps_of(make_spec(tiny_model), tmp_path / "whole")
    shutil.copytree(tiny_model, tmp_path / "elsewhere")
    steps_of(
        make_spec(tmp_path / "elsewhere", checkpoint_every=3),
        tmp_path / "resumed",
        checkpoint_of(tmp_path / "whole", 2),
    )
    assert adapter_bytes(tmp_path / "resumed") == adapter_bytes(tmp_path / "whole")


OTHERS: dict[str, dict[str, Any]] = {
    "seed": {"seed": 12},
    "rate": {"learning_rate": 2e-2},
    "length": {"token_budget": 1101},
    "budget": {"max_sequence_tokens": 121},
    "rank": {"lora": LoraSpec(rank=8, alpha=8)},
    "threads": {"threads": 2},
    "base": {"base_model": PUBLIC_ID + "-2"},
    "data": {"tasks": [MOODS]},
}


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "compute_device", lambda: torch.device("cpu"))
        patch.setattr(trainer, "compute_dtype", lambda _: torch.float32)
        steps_of(make_spec(tiny_model), folder)
    return folder


@pytest.mark.parametrize("what", OTHERS)
def test_a_checkpoint_of_another_job_is_refused(tiny_model: Path, trained: Path, tmp_path: Path, what: str):
    with pytest.raises(CheckpointMismatch, match="the checkpoint was made with other settings or data"):
        next(iter(train(make_spec(tiny_model, **OTHERS[what]), tmp_path, checkpoint_of(trained, 2))))


def test_a_checkpoint_holds_no_pickle(trained: Path):
    names = {path.suffix for path in checkpoint_of(trained, 2).iterdir()}
    assert names == {".safetensors", ".json"}


def test_a_checkpoint_that_could_not_be_written_whole_does_not_exist(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "_flush", full)
    with pytest.raises(OSError, match="No space left"):
        steps_of(make_spec(tiny_model), tmp_path)
    assert not list((tmp_path / "checkpoints").glob("step-*"))


def test_a_checkpoint_takes_the_place_of_an_older_one(tiny_model: Path, trained: Path, tmp_path: Path):
    stale = checkpoint_of(tmp_path, 2)
    stale.mkdir(parents=True)
    (stale / "stale.json").touch()
    steps_of(make_spec(tiny_model), tmp_path)
    assert {path.name for path in stale.iterdir()} == {path.name for path in checkpoint_of(trained, 2).iterdir()}
