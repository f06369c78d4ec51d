"""An estimate is the cost of the measured micro-batches, between them and beyond."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.contract.progress import Measured, MeasuredBatch
from manyicl_core.method.plan import Counts
from manyicl_core.store.measurements.estimate import MicroBatches, RunWork, estimate_run, micro_batches

POINTS = [(256, 52), (512, 104), (1024, 20), (1024, 204), (2048, 408)]
costs = st.floats(0.01, 1, allow_nan=False)


def measured(seconds: list[float], memory: list[int]) -> Measured:
    return Measured(
        device="cpu",
        dtype="float32",
        threads=1,
        start_seconds=10,
        optimizer_seconds=0.5,
        checkpoint_seconds=2,
        batches=[
            MeasuredBatch(
                tokens=tokens, targets=targets, seconds=taken, scoring_seconds=taken / 3, peak_memory_bytes=used
            )
            for (tokens, targets), taken, used in zip(POINTS, seconds, memory, strict=True)
        ],
    )


def batches_of(*batches: tuple[int, int, int]) -> MicroBatches:
    return MicroBatches(*(np.asarray(column, dtype=np.int64) for column in zip(*batches, strict=True)))


@given(costs, costs, costs, costs)
def test_a_cost_of_this_form_is_found_for_lengths_that_were_not_measured(fixed, token, pair, target):
    def cost(rows: int, length: int, targets: int) -> float:
        return fixed + rows * length * token / 1e2 + rows * length**2 * pair / 1e5 + targets * target / 1e2

    known = measured([cost(1, *point) for point in POINTS], [round(1e9 * (1 + cost(1, *point))) for point in POINTS])
    asked = [(1, 300, 7), (1, 4096, 900), (12, 60, 100)]
    estimate = estimate_run(known, RunWork(3, batches_of(*asked), 1.0, 10))
    assert estimate.seconds == pytest.approx(10 + 3 * 0.5 + 2 + sum(cost(*batch) for batch in asked), rel=1e-3)
    assert estimate.peak_memory_bytes == pytest.approx(1e9 * (1 + max(cost(*batch) for batch in asked)), rel=1e-3)


def test_noise_makes_nothing_cheaper_than_nothing() -> None:
    # The longest was quick by accident: through these points a parabola bends down.
    known = measured([1.0, 2.0, 4.0, 4.0, 5.0], [10**9] * 5)
    long = estimate_run(known, RunWork(1, batches_of((1, 8192, 1600)), 1.0, 10))
    short = estimate_run(known, RunWork(1, batches_of((1, 2048, 400)), 1.0, 10))
    assert long.seconds > short.seconds > 0
    assert long.peak_memory_bytes == pytest.approx(10**9, rel=0.01)


def test_checkpoints_are_counted_and_a_part_stands_for_the_whole() -> None:
    known = measured([1.0] * 5, [10**9] * 5)
    one = estimate_run(known, RunWork(1, batches_of((1, 512, 100)), 1.0, 10)).seconds
    assert one == pytest.approx(10 + 1 + 0.5 + 2, abs=0.1)
    many = estimate_run(known, RunWork(21, batches_of((1, 512, 100)), 21.0, 10)).seconds
    assert many == pytest.approx(10 + 21 * 1.5 + 3 * 2, abs=1)


def test_each_validation_scores_its_sequences_forward_only() -> None:
    known = measured([1.5] * 5, [10**9] * 5)
    alone = RunWork(6, batches_of((1, 512, 100)), 6.0, 10)
    validated = replace(alone, scored=batches_of((1, 512, 100), (1, 512, 100)), validations=3)
    more = estimate_run(known, validated).seconds - estimate_run(known, alone).seconds
    assert more == pytest.approx(3 * 2 * 0.5, rel=0.05)


def test_sequences_are_cut_into_steps_and_these_into_micro_batches() -> None:
    numbers = np.arange(1, 8)
    counts = Counts(
        task=numbers,
        demonstrations=numbers,
        documents=np.ones_like(numbers),
        tokens=10 * numbers,
        longest=10 * numbers,
        target_tokens=numbers,
        answers=numbers,
    )
    cut = micro_batches(counts, batch_size=3, micro_batch_size=2)
    # Steps of 1-3, 4-6 and 7; no micro-batch reaches over the end of a step.
    assert cut.rows.tolist() == [2, 1, 2, 1, 1]
    assert cut.length.tolist() == [20, 30, 50, 60, 70]
    assert cut.targets.tolist() == [3, 3, 9, 6, 7]
