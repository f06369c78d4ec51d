"""Seconds a token and memory from 512 to 8192 tokens, and the share of attention in them.

``python -m benchmarks.cost_by_length --json FILE [--quick]``. Each length in fresh processes, as a
peak of memory only grows: one is timed, another is profiled. Attention is the only part of the
model whose cost a token grows with the length; what is left without it shows what else grows.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.sample_jobs import our_side, pooled_task, speed_job
from manyicl_core.method.sequences import StreamSettings

STEPS = {512: 12, 1024: 10, 2048: 8, 4096: 5, 8192: 4}
QUICK_STEPS = {512: 5, 1024: 4, 2048: 3}
PROFILED_STEPS = 2


def main() -> int:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="up to 2048 tokens, few steps: two minutes")
    arguments = parser.parse_args()
    lengths = QUICK_STEPS if arguments.quick else STEPS
    figures: dict[str, float] = {}
    table = Table(
        "tokens", "ms a token", "of them attention", "without attention", "attention share", "peak memory, GB"
    )
    for length, steps in lengths.items():
        figures |= measure(length, steps)
        milliseconds = figures[f"seconds_per_token_{length}"] * 1000
        without = figures[f"seconds_per_token_without_attention_{length}"] * 1000
        table.add_row(
            str(length),
            f"{milliseconds:.3f}",
            f"{milliseconds - without:.3f}",
            f"{without:.3f}",
            f"{figures[f'attention_share_{length}']:.0%}",
            f"{figures[f'peak_memory_bytes_{length}'] / 1e9:.2f}",
        )
    shortest, longest = min(lengths), max(lengths)
    for figure in ("seconds_per_token", "seconds_per_token_without_attention", "peak_memory_bytes"):
        ratio = figures[f"{figure}_{longest}"] / figures[f"{figure}_{shortest}"]
        figures[f"{figure}_{longest}_over_{shortest}"] = ratio
    Console().print(table)
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(length: int, steps: int) -> dict[str, float]:
    """Medians over the steps after the first one."""
    timed = run(length, steps)
    profiled = run(length, 1 + PROFILED_STEPS, "--profile")
    seconds = statistics.median(report["seconds"] / report["tokens"] for report in timed[1:])
    share = statistics.median(report["attention_seconds"] / report["seconds"] for report in profiled[1:])
    return {
        f"seconds_per_token_{length}": seconds,
        f"attention_share_{length}": share,
        f"seconds_per_token_without_attention_{length}": seconds * (1 - share),
        f"peak_memory_bytes_{length}": timed[-1]["peak_memory_bytes"],
    }


def run(length: int, steps: int, *options: str) -> list[dict[str, Any]]:
    """Every step's report of a fresh process."""
    spec = speed_job([pooled_task()], StreamSettings(max_sequence_tokens=length), steps)
    with tempfile.TemporaryDirectory() as name, our_side(spec, Path(name) / "spec.json", *options) as side:
        return [side.step() for _ in range(steps)]


if __name__ == "__main__":
    sys.exit(main())
