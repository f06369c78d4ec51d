"""One long sequence computed by several processes: torch's ring attention, through accelerate.

Every process takes two chunks of the sequence, one from each end, so that under a causal mask all
have the same work. Keys and values go round; labels are the next tokens already, so each process
scores the targets of its own chunks.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.nn.functional as F
from accelerate import Accelerator

from manyicl_core.training.batches import IGNORED, MicroBatch

Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@contextmanager
def split_sequence(accelerator: Accelerator, batch: MicroBatch, size: int, device: torch.device) -> Iterator[Parts]:
    """This process's tokens, labels, weights and positions of ``batch``, on ``device``.

    Both passes through the model belong inside: attention is the ring's meanwhile.

    Args:
        size: how many processes share the sequence. It is padded on the right to two chunks for
            each; no real token sees a pad, and none is a target.
    """
    rows, length = batch.tokens.shape
    extra = -length % (2 * size)
    tokens = F.pad(batch.tokens, (0, extra)).to(device)
    labels = F.pad(batch.labels, (0, extra), value=IGNORED).to(device)
    weights = torch.zeros(labels.shape, device=device)
    weights[labels != IGNORED] = batch.weights.to(device)
    positions = torch.arange(length + extra, device=device).repeat(rows, 1)
    buffers = [tokens, labels, weights, positions]
    # Cuts the buffers in place.
    with accelerator.maybe_context_parallel(buffers, [1] * len(buffers), no_restore_buffers=set(buffers)):
        yield tokens, labels, weights[labels != IGNORED], positions


def join_targets(
    accelerator: Accelerator,
    batch_labels: torch.Tensor,
    labels: torch.Tensor,
    positions: torch.Tensor,
    values: torch.Tensor,
) -> torch.Tensor:
    """Put the processes' values of their targets together, in the order of the whole sequence.

    Args:
        batch_labels: int64 ``[rows, length]`` of the whole micro-batch.
        labels: those of this process's part.
        positions: where in the whole each of the part's tokens is.
        values: float32 ``[kinds, targets of the part]``.

    Returns:
        float32 ``[kinds, targets]`` on the CPU.
    """
    row, column = (labels != IGNORED).nonzero(as_tuple=True)
    joined = torch.zeros(len(values), *batch_labels.shape, device=values.device)
    joined[:, row, positions[row, column]] = values
    dist.all_reduce(joined, group=accelerator.torch_device_mesh["cp"].get_group())
    return joined.cpu()[:, batch_labels != IGNORED]
