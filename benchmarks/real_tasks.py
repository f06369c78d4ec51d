"""A job over real tasks, through the service: base beside tuned at k = 0, 4, 16.

``python -m benchmarks.real_tasks --data DIR --json FILE [--quick]``. ``DIR`` holds a folder a
task, with ``task.json``, ``train.jsonl`` and ``test.jsonl`` as in ``examples/tasks``. Tasks with
the role ``heldout`` are never trained on.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from openai import OpenAI
from rich.console import Console

from examples.report import print_table, write_report
from examples.service import start_service
from examples.watch import watch_job
from manyicl_core.settings import DEFAULT_BASE_MODEL

TRAINED = ["trec", "sst2", "banking77", "tweet_emotion", "snli", "sick", "commonsense_qa", "agnews_headline", "svamp"]
HELD_OUT = ["customer_reviews", "tweet_irony", "med", "strategyqa", "multiarith"]
SHOTS = [0, 4, 16]
_FIELDS = ("name", "instruction", "family", "labels", "metric", "role")


def main() -> int:
    """Run the job and write its report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of task folders")
    parser.add_argument("--json", type=Path, required=True, help="where the report goes")
    parser.add_argument("--tokens", type=int, default=240_000, help="tokens to train on")
    parser.add_argument("--queries", type=int, default=100, help="test queries a task")
    parser.add_argument("--quick", action="store_true", help="few tokens and queries: two minutes")
    arguments = parser.parse_args()
    tokens, queries = (4_000, 8) if arguments.quick else (arguments.tokens, arguments.queries)
    names = [*TRAINED[:2], HELD_OUT[0]] if arguments.quick else [*TRAINED, *HELD_OUT]

    console = Console(highlight=False, soft_wrap=True)
    seconds: dict[str, float] = {}
    definitions, training, validation = read_tasks(arguments.data, names)
    with tempfile.TemporaryDirectory() as folder:
        service, connection = start_service(Path(folder))
        try:
            client = OpenAI(**connection)  # type: ignore[arg-type]
            job = client.fine_tuning.jobs.create(
                model=DEFAULT_BASE_MODEL,
                training_file=client.files.create(file=("train.jsonl", training), purpose="fine-tune").id,
                validation_file=client.files.create(file=("test.jsonl", validation), purpose="fine-tune").id,
                seed=1,
                extra_body={
                    "manyicl": {
                        "token_budget": tokens,
                        "tasks": definitions,
                        "evaluation": {"shots": SHOTS, "queries": queries},
                    }
                },
            )
            job = watch_job(client, job.id, console, seconds)
            if job.status != "succeeded":
                console.print(f"the job {job.status}: {job.error}", markup=False)
                return 1
            print_table(client, job, console)
            write_report(arguments.json, job, seconds, client)
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait()
    return 0


def read_tasks(data: Path, names: list[str]) -> tuple[list[dict[str, Any]], bytes, bytes]:
    """Definitions, and all training and test lines with their task's name; test lines shuffled once."""
    definitions = []
    parts: dict[str, list[str]] = {"train": [], "test": []}
    for name in names:
        definition = json.loads((data / name / "task.json").read_text(encoding="utf-8"))
        definitions.append({field: definition[field] for field in _FIELDS})
        for part, lines in parts.items():
            examples = (data / name / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
            if part == "test":
                random.Random(0).shuffle(examples)
            lines += [json.dumps({"task": name, **json.loads(example)}) for example in examples]
    return definitions, "\n".join(parts["train"]).encode(), "\n".join(parts["test"]).encode()


if __name__ == "__main__":
    sys.exit(main())
