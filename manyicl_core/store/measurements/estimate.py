"""What training will take: measured micro-batches, and a model of cost between and beyond them.

Seconds and bytes of a micro-batch are a constant, plus a part for each token, for each pair of
tokens of a document (attention), and for each target (the output head); fitted to what a worker
measured.
"""

from collections.abc import Sequence
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
class RunWork:
    """What one trainer process does.

    Attributes:
        steps: optimizer steps.
        batches: its micro-batches, or the first of very many.
        scale: how many times as many there are in all.
        checkpoint_every: optimizer steps between two checkpoints.
        scored: the micro-batches of one validation; None where nothing is validated.
        validations: how often they are scored.
    """

    steps: int
    batches: MicroBatches
    scale: float
    checkpoint_every: int
    scored: MicroBatches | None = None
    validations: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What training takes on the worker that was measured; the evaluation at the end is not counted."""

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


def estimate_run(measured: Measured, run: RunWork) -> Estimate:
    """What a trainer process takes, from its start until its weights are saved."""
    points = _features(
        MicroBatches(
            rows=np.ones(len(measured.batches), dtype=np.int64),
            length=np.asarray([batch.tokens for batch in measured.batches]),
            targets=np.asarray([batch.targets for batch in measured.batches]),
        )
    )
    work = _features(run.batches)
    training = _fit(points, [batch.seconds for batch in measured.batches])
    memory = _fit(points, [batch.peak_memory_bytes for batch in measured.batches])
    seconds = measured.start_seconds + float((work @ training).sum()) * run.scale
    seconds += run.steps * measured.optimizer_seconds
    # Between the steps, and the weights at the end.
    seconds += (1 + (run.steps - 1) // run.checkpoint_every) * measured.checkpoint_seconds
    if run.scored is not None:
        scoring = _fit(points, [batch.scoring_seconds for batch in measured.batches])
        seconds += run.validations * float((_features(run.scored) @ scoring).sum())
    # No process is smaller than the smallest that was measured.
    peak = max(measured.batches[0].peak_memory_bytes, round(float((work @ memory).max())))
    return Estimate(seconds, peak)


def _features(batches: MicroBatches) -> FloatArray:
    """What a micro-batch's cost depends on: float64 ``[micro-batches, 4]``."""
    tokens = batches.rows * batches.length
    parts = [np.ones_like(tokens), tokens, tokens * batches.length, batches.targets]
    return np.stack(parts, axis=1).astype(np.float64)


def _fit(features: FloatArray, costs: Sequence[float]) -> FloatArray:
    """The cost of each feature, none below zero, with the least squares of relative errors."""
    values = np.asarray(costs, dtype=np.float64)
    scale = features.max(axis=0)
    kept = list(range(features.shape[1]))
    while True:
        relative = features[:, kept] / scale[kept] / values[:, None]
        solution = np.linalg.lstsq(relative, np.ones(len(values)))[0]
        if (solution >= 0).all():
            fitted = np.zeros(features.shape[1])
            fitted[kept] = solution / scale[kept]
            return fitted
        # Nothing makes a batch cheaper: a negative cost is noise.
        del kept[int(solution.argmin())]
