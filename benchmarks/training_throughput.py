"""Our trainer against TRL's SFTTrainer: the same tokens, targets, LoRA and dtype, step by step in turns.

``python -m benchmarks.training_throughput --json FILE [--quick]``. One sequence a step. Ours runs as
the worker starts it, TRL as a user does, but without gradient checkpointing, like ours. Two more
comparisons at the shorter lengths: ``_over_checkpointing`` is TRL with gradient checkpointing, its
default, and ``_over_our_environment`` is TRL with our worker's settings of OpenMP and the C library.
Ratios are medians over the steps after the first ones; the figures without a length are geometric
means over the lengths. ``largest_loss_difference_fp32`` is over 20 steps in float32.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.peers.environment import peer_python
from benchmarks.sample_jobs import our_command, our_side, pooled_task, speed_job
from benchmarks.turns import Side
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.child_process import job_environment
from manyicl_core.contract.train_spec import TrainSpec
from manyicl_core.method.objectives import supervised_answers, target_positions
from manyicl_core.method.sequences import EncodedTask, SequenceStream, StreamSettings

STEPS = {512: 14, 2048: 10, 4096: 7}
QUICK_STEPS = {512: 7}
OTHERS = {512: ["trl", "checkpointing", "our_environment"], 2048: ["trl", "checkpointing", "our_environment"]}
WARM_UP = 2
LOSS_STEPS = 20
LOSS_LENGTH = 256

Reports = dict[str, list[dict[str, Any]]]


def main() -> int:
    """Measure and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="one length and few steps: two minutes")
    arguments = parser.parse_args()
    python = peer_python("trl", ["trl==1.16.0", "datasets==5.2.0"], ["torch", "transformers", "peft", "accelerate"])
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        losses = take_turns(python, folder, LOSS_LENGTH, LOSS_STEPS, ["trl"], float32=True)
        figures["largest_loss_difference_fp32"] = max(
            abs(mine["loss"] - theirs["loss"]) for mine, theirs in zip(losses["ours"], losses["trl"], strict=True)
        )
        for length, steps in (QUICK_STEPS if arguments.quick else STEPS).items():
            others = ["trl"] if arguments.quick else OTHERS.get(length, ["trl"])
            figures |= compare(take_turns(python, folder, length, steps, others), length)
    figures |= overall(figures)
    table = Table("figure", "value")
    for key, value in figures.items():
        table.add_row(key, f"{value:.4g}")
    Console().print(table)
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def take_turns(
    python: Path, folder: Path, length: int, steps: int, others: list[str], float32: bool = False
) -> Reports:
    """Every step's report of ``ours`` and ``others``, each in a fresh process."""
    # One more than are made: TRL reports a step when it is about to begin the next.
    spec = speed_job([pooled_task()], StreamSettings(max_sequence_tokens=length), steps + 1)
    adapter = folder / "adapter"
    if not adapter.exists():
        subprocess.run(our_command(spec, folder / "adapter.json", "--save-adapter", str(adapter)), check=True)
    spec = spec.model_copy(update={"start_folder": str(adapter)})
    with contextlib.ExitStack() as running:
        ours = running.enter_context(our_side(spec, folder / "ours.json", *(["--float32"] if float32 else [])))
        sides = {"ours": ours}
        for other in others:
            file = folder / f"{other}.json"
            file.write_text(json.dumps(trl_config(spec, steps + 1, ours.ready["dtype"], other)), encoding="utf-8")
            command = [str(python), "-m", "benchmarks.peers.trl_sft", str(file)]
            environment = job_environment({}) if other == "our_environment" else {}
            sides[other] = running.enter_context(Side(command, file.with_suffix(".log"), environment))
        reports: Reports = {name: [] for name in sides}
        for step in range(steps):
            for name in list(sides)[:: -1 if step % 2 else 1]:
                reports[name].append(sides[name].step())
    for name in others:
        assert [report["tokens"] for report in reports[name]] == [report["tokens"] for report in reports["ours"]]
    return reports


def trl_config(spec: TrainSpec, rows: int, dtype: str, variant: str) -> dict[str, Any]:
    """What ``benchmarks.peers.trl_sft`` reads: the job's own sequences and targets."""
    encoder = load_encoder(Path(spec.base_model_folder))
    stream = SequenceStream([EncodedTask(task, encoder) for task in spec.tasks], spec.seed, spec.stream)
    return {
        "model_folder": spec.base_model_folder,
        "adapter_folder": spec.start_folder,
        "rows": [trl_row(spec, stream, number) for number in range(rows)],
        "dtype": dtype,
        "threads": spec.threads,
        "learning_rate": spec.learning_rate,
        "gradient_checkpointing": variant == "checkpointing",
    }


def trl_row(spec: TrainSpec, stream: SequenceStream, number: int) -> dict[str, list[int]]:
    """A sequence in TRL's form: a label stands at its token's own position."""
    sequence = stream.nth(number)
    labels = np.full(len(sequence.tokens), -100)
    positions = target_positions(supervised_answers(spec.objective, sequence))
    labels[positions] = sequence.tokens[positions]
    return {"input_ids": sequence.tokens.tolist(), "labels": labels.tolist()}


def compare(reports: Reports, length: int) -> dict[str, float]:
    """Figures of one length."""
    measured = {name: its[WARM_UP:] for name, its in reports.items()}
    ours = measured.pop("ours")
    figures = {"target_share": sum(report["target_tokens"] for report in measured["trl"])}
    figures["target_share"] /= sum(report["tokens"] for report in ours)
    for name, its in {"ours": ours, **measured}.items():
        figures[f"{name}_tokens_per_second"] = statistics.median(r["tokens"] / r["seconds"] for r in its)
        figures[f"{name}_peak_memory_bytes"] = its[-1]["peak_memory_bytes"]
    for name, its in measured.items():
        suffix = "" if name == "trl" else f"_over_{name}"
        figures[f"tokens_per_second_ratio{suffix}"] = statistics.median(
            theirs["seconds"] / mine["seconds"] for mine, theirs in zip(ours, its, strict=True)
        )
        figures[f"cpu_seconds_ratio{suffix}"] = statistics.median(
            mine["cpu_seconds"] / theirs["cpu_seconds"] for mine, theirs in zip(ours, its, strict=True)
        )
        figures[f"peak_memory_ratio{suffix}"] = ours[-1]["peak_memory_bytes"] / its[-1]["peak_memory_bytes"]
    return {f"{key}_{length}": value for key, value in figures.items()}


def overall(figures: dict[str, float]) -> dict[str, float]:
    """Geometric means over the lengths."""
    return {
        ratio: statistics.geometric_mean(value for key, value in figures.items() if key.rpartition("_")[0] == ratio)
        for ratio in ("tokens_per_second_ratio", "peak_memory_ratio")
    }


if __name__ == "__main__":
    sys.exit(main())
