"""What a measurement of a worker tells."""

import time
from pathlib import Path

from manyicl_core.training.measure import measure
from tests.tiny_model import MAX_POSITIONS
from tests.unit.training.specs import make_spec


def test_lengths_up_to_the_models_context_are_measured(tiny_model: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    [measured] = measure(make_spec(tiny_model), tmp_path, started)
    took = time.monotonic() - started
    lengths = [batch.tokens for batch in measured.batches]
    assert lengths == sorted(lengths)
    assert lengths[-1] == MAX_POSITIONS
    # One length with few and with many targets tells what a target costs.
    assert len({batch.targets for batch in measured.batches if batch.tokens == MAX_POSITIONS // 2}) == 2
    assert all(0 < batch.targets <= batch.tokens / 4 for batch in measured.batches)
    peaks = [batch.peak_memory_bytes for batch in measured.batches]
    assert peaks == sorted(peaks)
    parts = [measured.start_seconds, measured.optimizer_seconds, measured.checkpoint_seconds]
    parts += [seconds for batch in measured.batches for seconds in (batch.seconds, batch.scoring_seconds)]
    assert all(seconds > 0 for seconds in parts)
    assert sum(parts) < took
