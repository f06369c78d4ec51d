"""Checkpoints: adapter, optimizer and step, complete or absent.

Written to a temporary folder, flushed to disk, then renamed: a reader never sees half of one.
Only safetensors and JSON, no pickle. The data stream needs no state but the step.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from manyicl_core.contract.train_spec import TrainSpec
from manyicl_core.training.adapters import save_adapter

_ADAPTER = "adapter_model.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_STATE = "state.json"


class CheckpointMismatch(ValueError):
    """A checkpoint that belongs to other settings or other data than the job at hand."""


def config_hash(spec: TrainSpec) -> str:
    """SHA-256 over all that decides the adapter's bytes; the model folder's place does not."""
    content = spec.model_dump(mode="json", exclude={"base_model_folder", "checkpoint_every"})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def save_checkpoint(
    folder: Path, spec: TrainSpec, step: int, model: PeftModel, optimizer: torch.optim.Optimizer
) -> Path:
    """Write ``folder/step-NNNNNN`` atomically and return it."""
    final = folder / f"step-{step:06d}"
    temporary = folder / f".{final.name}.{os.getpid()}"
    temporary.mkdir(parents=True)
    save_adapter(model, temporary)
    save_file(_optimizer_tensors(model, optimizer), str(temporary / _OPTIMIZER))
    state = {"step": step, "config_hash": config_hash(spec)}
    (temporary / _STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")
    for path in [*temporary.iterdir(), temporary]:
        _flush(path)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    _flush(folder)
    return final


def load_checkpoint(folder: Path, spec: TrainSpec, model: PeftModel, optimizer: torch.optim.Optimizer) -> int:
    """Restore adapter and optimizer in place; return the number of steps done.

    Raises:
        CheckpointMismatch: when ``folder`` was made by another configuration.
    """
    state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    if state["config_hash"] != config_hash(spec):
        raise CheckpointMismatch("the checkpoint was made with other settings or data than this job")
    set_peft_model_state_dict(model, load_file(str(folder / _ADAPTER)))
    tensors = load_file(str(folder / _OPTIMIZER))
    for name, parameter in _trainable(model):
        optimizer.state[parameter] = {
            key: tensors[f"{name}.{key}"].to(parameter.device if key != "step" else "cpu")
            for key in ("step", "exp_avg", "exp_avg_sq")
        }
    step = state["step"]
    assert isinstance(step, int)
    return step


def _trainable(model: PeftModel) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _optimizer_tensors(model: PeftModel, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.contiguous()
        for name, parameter in _trainable(model)
        for key, value in optimizer.state[parameter].items()
    }


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
