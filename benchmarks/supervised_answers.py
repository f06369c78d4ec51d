"""Supervised answers a second, many_icl over few_shot, on the same sequences, step by step in turns.

``python -m benchmarks.supervised_answers --json FILE [--quick]``. Every sequence has exactly 16, 32
or 64 demonstrations of one sample task: ``few_shot`` learns from the last answer, ``many_icl`` from
all. The ratio would be the number of demonstrations if the additional targets cost nothing.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.sample_jobs import our_side, sample_tasks, speed_job
from manyicl_core.method.sequences import StreamSettings

SHOTS = (16, 32, 64)
WARM_UP = 2
ROOMY = 8192
"""More tokens than 64 demonstrations of any sample task take."""


def main() -> int:
    """Measure and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="16 shots and few steps: two minutes")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    table = Table("shots", "tokens a sequence", "many_icl answers/s", "few_shot answers/s", "ratio", "ratio / shots")
    for shots in SHOTS[:1] if arguments.quick else SHOTS:
        figures |= measure(shots, WARM_UP + (8 if arguments.quick else 20))
        ratio = figures[f"answers_per_second_ratio_{shots}"]
        table.add_row(
            str(shots),
            f"{figures[f'tokens_per_sequence_{shots}']:.0f}",
            f"{figures[f'many_icl_answers_per_second_{shots}']:.2f}",
            f"{figures[f'few_shot_answers_per_second_{shots}']:.3f}",
            f"{ratio:.1f}",
            f"{ratio / shots:.3f}",
        )
    Console().print(table)
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(shots: int, steps: int) -> dict[str, float]:
    """Medians over the steps after the first ones; the ratio is the median of the pairs' ratios."""
    stream = StreamSettings(max_sequence_tokens=ROOMY, max_demonstrations=shots)
    rates: dict[str, list[float]] = {"many_icl": [], "few_shot": []}
    tokens: list[int] = []
    with tempfile.TemporaryDirectory() as name:
        many_spec, few_spec = (
            speed_job(sample_tasks(), stream, steps, objective) for objective in ("many_icl", "few_shot")
        )
        with our_side(many_spec, Path(name) / "many.json") as many, our_side(few_spec, Path(name) / "few.json") as few:
            sides = {"many_icl": many, "few_shot": few}
            for step in range(steps):
                reports = {side: sides[side].step() for side in list(sides)[:: -1 if step % 2 else 1]}
                assert reports["many_icl"]["tokens"] == reports["few_shot"]["tokens"]
                assert reports["many_icl"]["answers"] == shots * reports["few_shot"]["answers"] == shots
                if step >= WARM_UP:
                    tokens.append(reports["many_icl"]["tokens"])
                    for side, report in reports.items():
                        rates[side].append(report["answers"] / report["seconds"])
    pairs = zip(rates["many_icl"], rates["few_shot"], strict=True)
    return {
        f"answers_per_second_ratio_{shots}": statistics.median(many / few for many, few in pairs),
        f"many_icl_answers_per_second_{shots}": statistics.median(rates["many_icl"]),
        f"few_shot_answers_per_second_{shots}": statistics.median(rates["few_shot"]),
        f"tokens_per_sequence_{shots}": statistics.mean(tokens),
    }


if __name__ == "__main__":
    sys.exit(main())
