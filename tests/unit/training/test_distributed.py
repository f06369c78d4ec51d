"""Several processes train as one does: the same steps, the same files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from manyicl_core.contract.progress import StepMetrics
from manyicl_core.contract.train_spec import TrainSpec, ValidationSpec
from manyicl_core.training import trainer
from manyicl_core.training.distribution import LONG_SEQUENCE, Layout, choose_layout
from tests.unit.training.ranks import Run
from tests.unit.training.specs import MOODS, checkpoint_of, make_spec, steps_of

REPLICATED, SHARDED, CONTEXT = Layout(2), Layout(2, sharded=True), Layout(2, sharded=True, context=2)


def odd_job(model: Path) -> TrainSpec:
    """Steps of three sequences, the last one shorter; gradients are clipped; validation over three."""
    validation = ValidationSpec(tasks=[MOODS], sequences=3, every=2)
    return make_spec(model, batch_size=3, n_epochs=2, token_budget=None, validation=validation, checkpoint_every=1)


def one_a_step(model: Path) -> TrainSpec:
    """The second process never has a sequence."""
    return make_spec(model, batch_size=1, token_budget=300, normalization="answer")


def whole_model(model: Path) -> TrainSpec:
    return make_spec(model, lora=None, batch_size=3, micro_batch_size=2, token_budget=500, learning_rate=1e-3)


def standing_still(model: Path, start: Path) -> TrainSpec:
    """A job that ends with the adapter that it starts from."""
    return make_spec(model, start_folder=str(start), learning_rate=0.0, token_budget=100)


@pytest.fixture(scope="module")
def tied_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with one matrix for input and output."""
    folder = tmp_path_factory.mktemp("tied")
    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tied_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every job trained by one process in ``one/NAME``, and by two in ``replicated/NAME`` and ``sharded/NAME``.

    Two share each sequence in ``context/odd``.
    """
    folder = tmp_path_factory.mktemp("distributed")
    for name in ("one", "replicated", "sharded", "context"):
        (folder / name).mkdir()
    jobs = {"odd": odd_job(tiny_model), "idle": one_a_step(tiny_model), "full": whole_model(tied_model)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "compute_device", lambda: torch.device("cpu"))
        patch.setattr(trainer, "compute_dtype", lambda _: torch.float32)
        for name, spec in jobs.items():
            keep(steps_of(spec, folder / "one" / name), folder / "one" / name)
    jobs["still"] = standing_still(tiny_model, folder / "one" / "odd" / "weights")
    wanted = [
        Run(spec=spec, layout=layout, folder=folder / kind / name)
        for kind, layout in (("replicated", REPLICATED), ("sharded", SHARDED))
        for name, spec in jobs.items()
    ]
    first = checkpoint_of(folder / "one" / "odd", 1)
    wanted += [
        Run(spec=jobs["odd"], layout=layout, folder=folder / kind / "resumed", checkpoint=first)
        for kind, layout in (("replicated", REPLICATED), ("sharded", SHARDED))
    ]
    wanted.append(Run(spec=jobs["odd"], layout=CONTEXT, folder=folder / "context" / "odd"))
    (folder / "runs.json").write_text(json.dumps([run.model_dump(mode="json") for run in wanted]))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=0"]
    done = subprocess.run(
        [*launcher, "-m", "tests.unit.training.ranks", str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def keep(steps: list[StepMetrics], folder: Path) -> None:
    (folder / "metrics.json").write_text(json.dumps([step.model_dump(mode="json") for step in steps]))


def metrics(folder: Path) -> list[StepMetrics]:
    return [StepMetrics.model_validate(step) for step in json.loads((folder / "metrics.json").read_text())]


def assert_same_steps(found: list[StepMetrics], wanted: list[StepMetrics]) -> None:
    assert len(found) == len(wanted) > 0
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, abs=1e-5)
        assert ours.valid_loss == pytest.approx(theirs.valid_loss, abs=1e-5)
        assert ours.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-4)
        assert ours.loss_by_answer == pytest.approx(theirs.loss_by_answer, abs=1e-5)
        same = ("step", "tokens", "answers", "token_accuracy", "learning_rate", "accuracy_by_answer")
        assert {name: getattr(ours, name) for name in same} == {name: getattr(theirs, name) for name in same}


def assert_same_tensors(found: Path, wanted: Path) -> None:
    ours, theirs = load_file(found), load_file(wanted)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["replicated", "sharded"])
@pytest.mark.parametrize("name", ["odd", "idle", "full"])
def test_the_steps_of_two_processes_are_those_of_one(runs: Path, kind: str, name: str):
    assert_same_steps(metrics(runs / kind / name), metrics(runs / "one" / name))


def test_two_processes_that_share_each_sequence_make_the_steps_of_one(runs: Path):
    assert_same_steps(metrics(runs / "context" / "odd"), metrics(runs / "one" / "odd"))
    file = "weights/adapter_model.safetensors"
    assert_same_tensors(runs / "context" / "odd" / file, runs / "one" / "odd" / file)


@pytest.mark.parametrize("kind", ["replicated", "sharded"])
@pytest.mark.parametrize(
    ("name", "file"),
    [("odd", "adapter_model.safetensors"), ("idle", "adapter_model.safetensors"), ("full", "model.safetensors")],
)
def test_the_weights_of_two_processes_are_those_of_one(runs: Path, kind: str, name: str, file: str):
    assert_same_tensors(runs / kind / name / "weights" / file, runs / "one" / name / "weights" / file)


@pytest.mark.parametrize("kind", ["replicated", "sharded"])
def test_an_adapter_that_is_loaded_and_saved_is_the_same_in_every_bit(runs: Path, kind: str):
    still, start = runs / kind / "still" / "weights", runs / "one" / "odd" / "weights"
    assert (still / "adapter_model.safetensors").read_bytes() == (start / "adapter_model.safetensors").read_bytes()


def test_peft_loads_what_two_processes_saved(runs: Path, tiny_model: Path):
    folder = runs / "sharded" / "odd" / "weights"
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), folder)
    held = {name.replace(".default", ""): tensor for name, tensor in adapted.state_dict().items() if "lora" in name}
    saved = load_file(folder / "adapter_model.safetensors")
    assert held.keys() == saved.keys()
    assert all(torch.equal(held[name], tensor) for name, tensor in saved.items())


@pytest.mark.parametrize("kind", ["replicated", "sharded"])
def test_a_run_goes_on_in_two_processes_and_then_in_one(runs: Path, kind: str, tiny_model: Path, tmp_path: Path):
    alone = metrics(runs / "one" / "odd")
    assert_same_steps(metrics(runs / kind / "resumed"), alone[1:])
    last = steps_of(odd_job(tiny_model), tmp_path / "last", checkpoint_of(runs / kind / "resumed", 2))
    assert_same_steps(last, alone[2:])
    file = "weights/adapter_model.safetensors"
    assert_same_tensors(tmp_path / "last" / file, runs / "one" / "odd" / file)


def test_every_checkpoint_holds_the_whole_optimizer(runs: Path):
    name = "optimizer.safetensors"
    wanted = checkpoint_of(runs / "one" / "odd", 1) / name
    for kind in ("replicated", "sharded"):
        assert_same_tensors(checkpoint_of(runs / kind / "odd", 1) / name, wanted)


GIB = 2**30


@pytest.mark.parametrize(
    ("processes", "model_gib", "device_gib", "tokens", "layout"),
    [
        (1, 900, 80, 100_000, Layout(1)),
        (4, 16, 80, LONG_SEQUENCE, Layout(4)),
        (4, 60, 80, 1024, Layout(4, sharded=True)),
        (4, 16, 80, LONG_SEQUENCE + 1, Layout(4, sharded=True, context=2)),
        (4, 16, 80, 131_072, Layout(4, sharded=True, context=4)),
        (6, 16, 80, 100_000, Layout(6, sharded=True, context=6)),
        (2, 16, 80, 131_072, Layout(2, sharded=True, context=2)),
        (2, 900, None, 131_072, Layout(2)),
    ],
)
def test_the_layout_follows_from_the_model_the_device_and_the_sequences(
    processes: int, model_gib: int, device_gib: int | None, tokens: int, layout: Layout
):
    assert choose_layout(processes, model_gib * GIB, device_gib and device_gib * GIB, tokens) == layout
