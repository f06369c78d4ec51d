"""One of several processes that train the jobs of ``test_distributed``, one after another.

``python -m torch.distributed.run --nproc-per-node=2 -m tests.unit.training.ranks FOLDER`` reads
``FOLDER/runs.json`` and writes each run's metrics beside its files.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from pydantic import BaseModel
from torch.distributed.nn.functional import all_gather
from transformers import AttentionInterface

from manyicl_core.base_models.attention import BLOCKED_ATTENTION
from manyicl_core.child_process import die_with_parent
from manyicl_core.contract.progress import StepMetrics
from manyicl_core.contract.train_spec import TrainSpec
from manyicl_core.training import distribution, trainer
from manyicl_core.training.distribution import Layout


class Run(BaseModel):
    """A job, how it is distributed, and the folder that it trains in."""

    spec: TrainSpec
    layout: Layout
    folder: Path
    checkpoint: Path | None = None


def train(run: Run) -> None:
    """Train, and let the first process write the metrics."""
    run.folder.mkdir(exist_ok=True)
    PartialState(cpu=True)
    if run.layout.sharded:
        # accelerate shards over GPUs only, though all that it does then runs on CPUs as well.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    with (
        mock.patch.object(trainer, "compute_device", return_value=torch.device("cpu")),
        mock.patch.object(trainer, "compute_dtype", return_value=torch.float32),
        mock.patch.object(distribution, "choose_layout", return_value=run.layout),
        # The launcher's store cannot tell a second process group from the first.
        mock.patch.object(distribution.Distribution, "leave"),
    ):
        steps = [message for message in trainer.train(run.spec, run.folder, run.checkpoint) if is_step(message)]
    if os.environ["RANK"] == "0":
        (run.folder / "metrics.json").write_text(json.dumps([step.model_dump(mode="json") for step in steps]))
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ.pop("ACCELERATE_USE_FSDP", None)


def is_step(message: object) -> bool:
    return isinstance(message, StepMetrics)


def attend_to_all(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: None, **others: Any
) -> tuple[torch.Tensor, None]:
    """In the place of torch's ring attention, which has no kernel for CPUs: gather all keys and values."""
    assert mask is None
    size = dist.get_world_size()
    chunk = query.shape[2] // 2
    order = [number for rank in range(size) for number in (rank, 2 * size - 1 - rank)]
    inverse = torch.argsort(torch.tensor(order))

    def in_order(parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
        chunks = [piece for part in parts for piece in part.split(chunk, dim=2)]
        return torch.cat([chunks[number] for number in inverse], dim=2)

    key, value = (in_order(all_gather(tensor.contiguous())) for tensor in (key, value))
    rank = dist.get_rank()
    first, last = rank * chunk, (2 * size - 1 - rank) * chunk
    mine = torch.cat([torch.arange(first, first + chunk), torch.arange(last, last + chunk)])
    later = mine[:, None] < torch.arange(key.shape[2])
    key, value = (tensor.repeat_interleave(query.shape[1] // tensor.shape[1], dim=1) for tensor in (key, value))
    scores = (query @ key.transpose(-1, -2) * others["scaling"]).masked_fill(later, float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2), None


def main(folder: Path) -> None:
    for content in json.loads((folder / "runs.json").read_text()):
        run = Run.model_validate(content)
        if run.layout.context > 1:
            AttentionInterface.register(BLOCKED_ATTENTION, attend_to_all)
        train(run)


if __name__ == "__main__":
    die_with_parent()
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
    dist.destroy_process_group()
