"""What training will take: measured micro-batches, and a model of cost between and beyond them.

Seconds and bytes of a micro-batch are a constant, plus a part for each token, for each pair of
tokens of a document (attention), and for each target (the output head); fitted to what a worker
measured.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manyicl_core.contract.progress import Measured
from manyicl_core.method.plan import Counts
from manyicl_core.method.sequences import IntArray

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """What runs through the model at once: int64 arrays ``[micro-batches]``.

    Attributes:
        rows: documents, each padded to the longest.
        length: tokens of the longest.
        targets: target tokens.
    """

    rows: IntArray
    length: IntArray
    targets: IntArray


@dataclass(frozen=True, slots=True)
class Estimate:
    """What training takes on the worker that was measured; evaluation and validation are not counted."""

    seconds: float
    peak_memory_bytes: int


def micro_batches(counts: Counts, batch_size: int, micro_batch_size: int) -> MicroBatches:
    """Cut a run's sequences as the trainer does: into steps, and these into micro-batches."""
    place = np.arange(len(counts)) % batch_size
    starts = np.flatnonzero(place % micro_batch_size == 0)
    return MicroBatches(
        rows=np.add.reduceat(counts.documents, starts),
        length=np.maximum.reduceat(counts.longest, starts),
        targets=np.add.reduceat(counts.target_tokens, starts),
    )


def estimate_run(
    measured: Measured, batches: MicroBatches, steps: int, checkpoint_every: int, scale: float
) -> Estimate:
    """What one trainer process takes, from its start until its weights are saved.

    Args:
        batches: its micro-batches, or the first of very many.
        scale: how many times as many there are in all.
    """
    points = MicroBatches(
        rows=np.ones(len(measured.batches), dtype=np.int64),
        length=np.asarray([batch.tokens for batch in measured.batches]),
        targets=np.asarray([batch.targets for batch in measured.batches]),
    )
    seconds_of = _fit(_features(points), np.asarray([batch.seconds for batch in measured.batches]))
    bytes_of = _fit(_features(points), np.asarray([float(batch.peak_memory_bytes) for batch in measured.batches]))
    work = _features(batches)
    # One more save: the trained weights.
    saves = 1 + (steps - 1) // checkpoint_every
    return Estimate(
        seconds=(
            measured.start_seconds
            + float((work @ seconds_of).sum()) * scale
            + steps * measured.optimizer_seconds
            + saves * measured.checkpoint_seconds
        ),
        # No process is smaller than the smallest that was measured.
        peak_memory_bytes=max(measured.batches[0].peak_memory_bytes, round(float((work @ bytes_of).max()))),
    )


def _features(batches: MicroBatches) -> FloatArray:
    """What a micro-batch's cost depends on: float64 ``[micro-batches, 4]``."""
    tokens = batches.rows * batches.length
    parts = [np.ones_like(tokens), tokens, tokens * batches.length, batches.targets]
    return np.stack(parts, axis=1).astype(np.float64)


def _fit(features: FloatArray, values: FloatArray) -> FloatArray:
    """The cost of each feature, none below zero, with the least squares of relative errors."""
    scale = features.max(axis=0)
    kept = list(range(features.shape[1]))
    while True:
        relative = features[:, kept] / scale[kept] / values[:, None]
        solution = np.linalg.lstsq(relative, np.ones(len(values)))[0]
        if (solution >= 0).all():
            costs = np.zeros(features.shape[1])
            costs[kept] = solution / scale[kept]
            return costs
        # Nothing makes a batch cheaper: a negative cost is noise.
        del kept[int(solution.argmin())]
