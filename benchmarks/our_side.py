"""Our trainer as a side of a benchmark: the real one, its steps made one by one.

``python -m benchmarks.our_side SPEC [--float32] [--profile]`` trains ``SPEC``;
``python -m benchmarks.our_side SPEC --save-adapter FOLDER`` only saves the adapter it starts from.
"""

import argparse
import contextlib
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from benchmarks.turns import Channel
from manyicl_core.contract.progress import StepMetrics
from manyicl_core.contract.train_spec import TrainSpec
from manyicl_core.training.trainer import train
from manyicl_core.training.weights import save_weights, trainable_model


def main() -> None:
    """Train, or save an adapter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, help="a TrainSpec as JSON")
    parser.add_argument("--float32", action="store_true", help="compute in float32 whatever the machine prefers")
    parser.add_argument("--profile", action="store_true", help="report the share of attention in each step's time")
    parser.add_argument("--save-adapter", type=Path, help="write the fresh adapter there and end")
    arguments = parser.parse_args()
    spec = TrainSpec.model_validate_json(arguments.spec.read_text(encoding="utf-8"))
    if arguments.save_adapter:
        torch.manual_seed(spec.seed)
        save_weights(trainable_model(spec, torch.device("cpu"), torch.float32), arguments.save_adapter)
        return
    in_float32 = patch("manyicl_core.training.trainer.compute_dtype", lambda device: torch.float32)
    with in_float32 if arguments.float32 else contextlib.nullcontext():
        take_turns(spec, Channel(), arguments.profile)


def take_turns(spec: TrainSpec, channel: Channel, profiled: bool) -> None:
    """One optimizer step a turn; the peak memory is the GPU's where there is one."""
    with tempfile.TemporaryDirectory() as folder:
        messages = train(spec, Path(folder), None)
        channel.report(**next(messages).model_dump(mode="json"))
        while True:
            channel.wait()
            with profile(activities=_activities()) if profiled else contextlib.nullcontext() as recorded:
                metrics = next(messages)
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
            assert isinstance(metrics, StepMetrics)
            figures: dict[str, Any] = {"loss": metrics.loss, "tokens": metrics.tokens, "answers": metrics.answers}
            if recorded:
                # Before the profile is read, which takes its time, ``metrics.seconds`` is the step's own time.
                figures["seconds"] = metrics.seconds
                figures["attention_seconds"] = attention_seconds(list(recorded.events() or []))
            if torch.cuda.is_available():
                figures["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
            channel.report(**figures)


def attention_seconds(events: list[FunctionEvent]) -> float:
    """Time in attention, forward and backward: outermost operations with attention in their name."""

    def in_attention(event: FunctionEvent | None) -> bool:
        return event is not None and ("attention" in event.name.lower() or in_attention(event.cpu_parent))

    outermost = [event for event in events if in_attention(event) and not in_attention(event.cpu_parent)]
    on_gpu = torch.cuda.is_available()
    return sum(float(event.device_time_total if on_gpu else event.cpu_time_total) for event in outermost) / 1e6


def _activities() -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]


if __name__ == "__main__":
    main()
