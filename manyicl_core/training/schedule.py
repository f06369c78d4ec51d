"""The learning rate of every step."""

import math

from manyicl_core.contract.train_spec import TrainSpec


def learning_rate(spec: TrainSpec, step: int, steps: int) -> float:
    """The rate of optimizer step ``step`` (from 0): linear warm-up, then the schedule down to zero."""
    warmup = max(1, round(spec.warmup_fraction * steps))
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    match spec.schedule:
        case "cosine":
            return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            return spec.learning_rate * (1 - done)
        case "constant":
            return spec.learning_rate
