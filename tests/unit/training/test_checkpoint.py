"""A resumed run is, byte for byte, the one that was never interrupted."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from manyicl_core.contract.progress import Started, StepMetrics
from manyicl_core.contract.train_spec import LoraSpec, TrainSpec, ValidationSpec
from manyicl_core.method.sequences import StreamSettings
from manyicl_core.training import checkpoint, trainer
from manyicl_core.training.checkpoint import CheckpointMismatch, TrainingState
from manyicl_core.training.trainer import train
from tests.unit.training.specs import (
    CONTRARY,
    MOODS,
    PUBLIC_ID,
    SILENT,
    TALK,
    adapter_bytes,
    checkpoint_of,
    files_of,
    make_spec,
    steps_of,
    stopping_early,
)

# Settings under which a resumed run is easily another one; every step of each is resumed from.
RUNS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "dropout": {"lora": LoraSpec(rank=4, alpha=8, dropout=0.3)},
    "full": {"lora": None, "learning_rate": 1e-3},
    "answer": {"normalization": "answer", "objective": "few_shot", "tasks": [MOODS, TALK]},
    "zero_shot": {"objective": "zero_shot", "weight_decay": 0.1, "schedule": "linear"},
    "micro-batches": {
        "token_budget": 1300,
        "batch_size": 3,
        "micro_batch_size": 2,
        "lora": LoraSpec(rank=4, alpha=8, dropout=0.1),
    },
    "some steps without targets": {"tasks": [SILENT, MOODS], "batch_size": 1, "token_budget": 600},
    "validation": {"validation": ValidationSpec(tasks=[CONTRARY], sequences=2, every=2)},
    "balanced": {
        "stream": StreamSettings(
            max_sequence_tokens=120, max_demonstrations=3, demonstrations="balanced", mixing="temperature"
        )
    },
}


def assert_same_from_every_step(spec: TrainSpec, folder: Path) -> list[StepMetrics]:
    """Metrics, later checkpoints and trained weights are those of the whole run; the whole run's metrics."""
    spec = spec.model_copy(update={"checkpoint_every": 1})
    whole = folder / "whole"
    steps = steps_of(spec, whole)
    saved = len(list((whole / "checkpoints").iterdir()))
    assert saved >= len(steps) - 1 >= 3
    best = 0
    for done in range(1, saved + 1):
        state = checkpoint_of(whole, done) / "state.json"
        best = json.loads(state.read_text())["state"]["best_step"]
        torch.manual_seed(done)
        resumed = folder / f"from {done}"
        assert (
            steps_of(spec, resumed, checkpoint_of(whole, done), checkpoint_of(whole, best) if best else None)
            == steps[done:]
        )
        for later in range(done + 1, saved + 1):
            assert files_of(checkpoint_of(resumed, later)) == files_of(checkpoint_of(whole, later))
        assert files_of(resumed / "weights") == files_of(whole / "weights")
    return steps


@pytest.mark.parametrize("run", RUNS)
def test_a_run_from_the_checkpoint_of_any_step_is_the_whole_run_to_the_byte(tiny_model: Path, tmp_path: Path, run: str):
    assert_same_from_every_step(make_spec(tiny_model, **{"token_budget": 800} | RUNS[run]), tmp_path)


def test_in_bfloat16_too_a_run_from_any_step_is_the_whole_run_to_the_byte(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trainer, "compute_dtype", lambda _: torch.bfloat16)
    assert_same_from_every_step(make_spec(tiny_model), tmp_path)


def test_a_run_that_stops_early_stops_at_the_same_step_from_any_checkpoint(tiny_model: Path, tmp_path: Path):
    steps = assert_same_from_every_step(stopping_early(tiny_model), tmp_path)
    state = json.loads((checkpoint_of(tmp_path / "whole", len(steps)) / "state.json").read_text())["state"]
    assert 1 < state["best_step"] == len(steps) - 2, "two measurements of patience"


def test_a_resumed_run_saves_checkpoints_as_often_as_the_whole_one(tiny_model: Path, tmp_path: Path):
    spec = make_spec(tiny_model)
    steps_of(spec, tmp_path / "whole")
    steps_of(spec, tmp_path / "resumed", checkpoint_of(tmp_path / "whole", 2))
    assert [path.name for path in (tmp_path / "resumed" / "checkpoints").iterdir()] == ["step-000004"]


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
    "budget": {"stream": StreamSettings(max_sequence_tokens=121)},
    "mixing": {"stream": StreamSettings(max_sequence_tokens=120, mixing="proportional")},
    "objective": {"objective": "few_shot"},
    "normalisation": {"normalization": "answer"},
    "schedule": {"schedule": "linear"},
    "micro-batches": {"micro_batch_size": 2},
    "dropout": {"lora": LoraSpec(rank=4, alpha=8, dropout=0.1)},
    "validation": {"validation": ValidationSpec(tasks=[CONTRARY], sequences=1, every=1)},
    "start": {"start_sha256": "0" * 64},
    "rank": {"lora": LoraSpec(rank=8, alpha=8)},
    "full": {"lora": None},
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


def test_a_state_records_the_best_measurement_and_how_many_came_since():
    state = TrainingState()
    seen = []
    for step, loss in enumerate([3.0, 2.0, 2.0, 2.5, 1.5], start=1):
        state.step = step
        seen.append((state.record(loss), state.best_step, state.best_loss, state.measured_since_best))
    assert seen == [
        (True, 1, 3.0, 0),
        (True, 2, 2.0, 0),
        (False, 2, 2.0, 1),  # equal is not better
        (False, 2, 2.0, 2),
        (True, 5, 1.5, 0),
    ]
