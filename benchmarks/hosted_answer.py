"""One hosted answer with its context's prefix against one without, over HTTP, alternating.

``python -m benchmarks.hosted_answer --json FILE [--quick]``. The contexts are demonstrations of a
sample task; "without" means a context that the engine has not seen, so that it is compiled first.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from openai import OpenAI
from rich.console import Console
from rich.table import Table

from examples.service import start_service
from manyicl_core.settings import DEFAULT_BASE_MODEL

TASK = Path(__file__).resolve().parents[1] / "examples" / "tasks" / "object_groups"


def main() -> int:
    """Measure and write the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="few repetitions: two minutes")
    arguments = parser.parse_args()
    repetitions = 5 if arguments.quick else 20
    with tempfile.TemporaryDirectory() as folder:
        service, connection = start_service(Path(folder))
        try:
            client = OpenAI(**connection)  # type: ignore[arg-type]
            figures = [measure(client, shots, repetitions) for shots in (16, 64)]
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait()
    table = Table("shots", "context tokens", "with prefix, s", "without, s", "without_over_with_prefix")
    for figure in figures:
        table.add_row(*[str(value) for value in figure.values()])
    Console().print(table)
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(client: OpenAI, shots: int, repetitions: int) -> dict[str, Any]:
    """Medians over ``repetitions`` pairs, and the median of the pairs' ratios."""
    definition = json.loads((TASK / "task.json").read_text(encoding="utf-8"))
    examples = [json.loads(line) for line in (TASK / "train.jsonl").read_text(encoding="utf-8").splitlines()[:shots]]
    queries = [json.loads(line)["input"] for line in (TASK / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    tokens = 0
    warm: list[float] = []
    cold: list[float] = []
    for repetition in range(repetitions):
        # A new instruction is a new context, of the same length but for a digit.
        context = {
            "instruction": f"{definition['instruction']} Part {repetition:03d}.",
            "labels": definition["labels"],
            "examples": examples,
        }
        for times, expected in ((cold, 0), (warm, None)):
            started = time.perf_counter()
            answer = client.chat.completions.create(
                model=DEFAULT_BASE_MODEL,
                messages=[{"role": "user", "content": queries[repetition]}],
                extra_body={"manyicl": {"context": context}},
            )
            times.append(time.perf_counter() - started)
            assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
            cached = answer.usage.prompt_tokens_details.cached_tokens or 0
            assert cached == expected or (expected is None and cached > 0)
            tokens = answer.usage.prompt_tokens
    return {
        "shots": shots,
        "prompt_tokens": tokens,
        "with_prefix_seconds": round(statistics.median(warm), 3),
        "without_prefix_seconds": round(statistics.median(cold), 3),
        "without_over_with_prefix": round(statistics.median(c / w for c, w in zip(cold, warm, strict=True)), 2),
    }


if __name__ == "__main__":
    sys.exit(main())
