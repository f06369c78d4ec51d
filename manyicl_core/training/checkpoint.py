"""Checkpoints: weights, optimizer and progress, complete or absent.

Written to a temporary folder, flushed to disk, then renamed: a reader never sees half of one.
Only safetensors and JSON, no pickle. The data stream needs no state but the step.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from peft import PeftModel
from pydantic import BaseModel
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from manyicl_core.contract.train_spec import TrainSpec
from manyicl_core.contract.weights import OPTIMIZER_FILE, STATE_FILE
from manyicl_core.training.sharding import gathered, like
from manyicl_core.training.weights import load_weights, save_weights, trained_parameters


class CheckpointMismatch(ValueError):
    """A checkpoint that belongs to other settings or other data than the job at hand."""


class TrainingState(BaseModel):
    """How far a run has come, and its validation's record.

    Attributes:
        step: optimizer steps done.
        best_step: the step with the lowest validation loss so far, 0 before the first.
        best_loss: that loss.
        measured_since_best: measurements since then.
    """

    step: int = 0
    best_step: int = 0
    best_loss: float | None = None
    measured_since_best: int = 0

    def record(self, valid_loss: float) -> bool:
        """Take in a measurement of the present step; say whether it is the best so far."""
        if self.best_loss is not None and valid_loss >= self.best_loss:
            self.measured_since_best += 1
            return False
        self.best_step, self.best_loss, self.measured_since_best = self.step, valid_loss, 0
        return True


class _Saved(BaseModel):
    config_hash: str
    state: TrainingState


def config_hash(spec: TrainSpec) -> str:
    """SHA-256 over all that decides the weights' bytes; the places of files do not."""
    content = spec.model_dump_json(exclude={"base_model_folder", "start_folder", "checkpoint_every"})
    return hashlib.sha256(content.encode()).hexdigest()


def save_checkpoint(
    folder: Path,
    spec: TrainSpec,
    state: TrainingState,
    model: PreTrainedModel | PeftModel,
    optimizer: torch.optim.Optimizer,
    leads: bool = True,
) -> Path:
    """Write ``folder/step-NNNNNN`` atomically and return it.

    All processes of a job take part, and the one that ``leads`` writes. What it writes does not
    tell how many there were.
    """
    final = folder / f"step-{state.step:06d}"
    temporary = folder / f".{final.name}.{os.getpid()}"
    if leads:
        temporary.mkdir(parents=True)
    save_weights(model, temporary, leads)
    tensors = gathered(_optimizer_tensors(model, optimizer), keep=leads)
    if not leads:
        return final
    save_file(tensors, str(temporary / OPTIMIZER_FILE))
    saved = _Saved(config_hash=config_hash(spec), state=state)
    (temporary / STATE_FILE).write_text(saved.model_dump_json() + "\n", encoding="utf-8")
    for path in [*temporary.iterdir(), temporary]:
        _flush(path)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    _flush(folder)
    return final


def load_checkpoint(folder: Path, spec: TrainSpec, model: PreTrainedModel | PeftModel) -> TrainingState:
    """Restore the weights in place, before the model is distributed; return how far the run had come.

    Raises:
        CheckpointMismatch: when ``folder`` was made by another configuration.
    """
    saved = _Saved.model_validate_json((folder / STATE_FILE).read_text(encoding="utf-8"))
    if saved.config_hash != config_hash(spec):
        raise CheckpointMismatch("the checkpoint was made with other settings or data than this job")
    load_weights(model, folder)
    return saved.state


def load_optimizer(folder: Path, model: PreTrainedModel | PeftModel, optimizer: torch.optim.Optimizer) -> None:
    """Restore the optimizer's state in place, after the model is distributed."""
    tensors = load_file(str(folder / OPTIMIZER_FILE))
    for name, parameter in trained_parameters(model):
        if f"{name}.step" not in tensors:
            continue  # no step has had a target yet
        optimizer.state[parameter] = {
            "step": tensors[f"{name}.step"],
            **{key: like(tensors[f"{name}.{key}"], parameter) for key in ("exp_avg", "exp_avg_sq")},
        }


def copy_weights(checkpoint: Path, folder: Path) -> None:
    """Take the weights of a checkpoint, as ``save_weights`` wrote them, without the rest."""
    for path in checkpoint.iterdir():
        if path.name not in (OPTIMIZER_FILE, STATE_FILE):
            shutil.copyfile(path, folder / path.name)


def _optimizer_tensors(
    model: PreTrainedModel | PeftModel, optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in trained_parameters(model):
        for key, value in optimizer.state[parameter].items():
            yield f"{name}.{key}", value


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
