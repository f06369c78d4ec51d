"""``make demo``: the main job, from task files to a hosted answer, through the public API alone.

Everything here is what a user's own program would do: start the service, upload files, create a
job with the ``openai`` client, follow it, read its results, ask the hosted endpoint.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from openai.types.fine_tuning.supervised_hyperparameters_param import SupervisedHyperparametersParam as Hyperparameters
from rich.console import Console

from examples.report import print_table, write_report
from examples.service import ServiceDidNotStart, start_service
from examples.watch import watch_job

ROOT = Path(__file__).resolve().parents[1]
TASKS = ROOT / "examples" / "tasks"
DATA = ROOT / ".demo"
HELD_OUT = "object_groups"

# Little text: many small steps learn more from it than few large ones.
HYPERPARAMETERS: Hyperparameters = {"batch_size": 1}
SHOTS = [0, 4, 16]
QUERIES, DRAWS = 30, 2

console = Console(highlight=False, soft_wrap=True)


class DemoFailed(RuntimeError):
    """The demo cannot go on."""


class Clock:
    """Seconds of each phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, title: str) -> Iterator[None]:
        """Time one phase under a headline."""
        console.rule(f"[bold]{title}", align="left")
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)


def main() -> int:
    """Run the demo; the exit status tells whether it worked."""
    parser = argparse.ArgumentParser(description="Run the main job on the sample tasks.")
    parser.add_argument("--keep", action="store_true", help="leave the service running at the end")
    keep = parser.parse_args().keep
    clock = Clock()
    service: subprocess.Popen[bytes] | None = None
    try:
        with clock.phase("pull", "1. The base model"):
            run("models", "pull")
        with clock.phase("start", "2. The service: PostgreSQL, Valkey, engine, api, worker"):
            service, connection = start_service(DATA)
        client = OpenAI(base_url=connection["base_url"], api_key=connection["api_key"])
        with clock.phase("upload", "3. Sample tasks"):
            definitions, training, validation = upload_tasks(client)
        with clock.phase("job", "4. One ManyICL job over all of them"):
            job = client.fine_tuning.jobs.create(
                model="HuggingFaceTB/SmolLM2-135M-Instruct",
                training_file=training,
                validation_file=validation,
                suffix="demo",
                seed=1,
                method={"type": "supervised", "supervised": {"hyperparameters": HYPERPARAMETERS}},
                extra_body={
                    "manyicl": {
                        "objective": "many_icl",
                        "max_sequence_tokens": 1024,
                        "token_budget": 50_000,
                        "tasks": definitions,
                        "evaluation": {"shots": SHOTS, "queries": QUERIES, "draws": DRAWS},
                    }
                },
            )
            job = watch_job(client, job.id, console, clock.seconds)
        if job.status != "succeeded":
            raise DemoFailed(f"the job {job.status}: {job.error.message if job.error else 'no reason given'}")
        console.rule("[bold]5. Results: base beside tuned", align="left")
        print_table(client, job, console)
        with clock.phase("ask", "6. A task that the model never saw, by demonstrations alone"):
            ask_about_held_out_task(client, job)
        write_report(ROOT / "demo-report.json", job, clock.seconds, client)
        tell_how_to_go_on(connection, job, service.pid if keep else None)
    except (DemoFailed, ServiceDidNotStart) as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 1
    finally:
        if service is not None and not keep:
            service.send_signal(signal.SIGTERM)
            service.wait()
    return 0


def run(*arguments: str) -> None:
    """Run a ``manyicl`` command and show what it says."""
    done = subprocess.run([sys.executable, "-m", "manyicl_core.cli.main", *arguments], cwd=ROOT, check=False)
    if done.returncode:
        raise DemoFailed(f"`manyicl {' '.join(arguments)}` failed")


def upload_tasks(client: OpenAI) -> tuple[list[dict[str, Any]], str, str]:
    """Upload all tasks' examples as one file and their test queries as another."""
    definitions: list[dict[str, Any]] = []
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for folder in sorted(TASKS.iterdir()):
        definition = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        definitions.append(definition)
        for part, collected in lines.items():
            for line in (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines():
                collected.append(json.dumps({"task": definition["name"], **json.loads(line)}))
    ids = []
    for part, collected in lines.items():
        content = "\n".join(collected).encode()
        file = client.files.create(file=(f"{part}.jsonl", content), purpose="fine-tune")
        console.print(f"{part}.jsonl: {len(collected)} examples of {len(definitions)} tasks -> {file.id}")
        ids.append(file.id)
    return definitions, ids[0], ids[1]


def ask_about_held_out_task(client: OpenAI, job: FineTuningJob) -> None:
    """Give the tuned model demonstrations of a held-out task in the request, and two queries."""
    folder = TASKS / HELD_OUT
    definition = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    shots = [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()[:16]]
    queries = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()[:2]]
    context = {"instruction": definition["instruction"], "labels": definition["labels"], "examples": shots}
    for query in queries:
        started = time.monotonic()
        answer = client.chat.completions.create(
            model=str(job.fine_tuned_model),
            messages=[{"role": "user", "content": query["input"]}],
            extra_body={"manyicl": {"context": context}},
        )
        usage = answer.usage
        assert usage is not None and usage.prompt_tokens_details is not None
        console.print(f"question: {query['input']}", markup=False)
        console.print(
            f"answer:   {answer.choices[0].message.content} (expected: {query['output']}); "
            f"{usage.prompt_tokens_details.cached_tokens} of {usage.prompt_tokens} prompt tokens came from the "
            f"cached prefix; {time.monotonic() - started:.2f} s",
            markup=False,
        )


def tell_how_to_go_on(connection: dict[str, str], job: FineTuningJob, pid: int | None) -> None:
    """The URL, where the key is, and a snippet."""
    console.rule("[bold]Your turn", align="left")
    console.print(f"URL: {connection['base_url']}   key: in {DATA / 'connection.json'}", markup=False)
    if pid is None:
        console.print("The service stops now; `make demo KEEP=1` leaves it running.")
    else:
        console.print(f"The service goes on; `kill {pid}` stops it.")
    console.print(
        f"""
import json, openai
where = json.load(open(".demo/connection.json"))
client = openai.OpenAI(**where)
query = [{{"role": "user", "content": "The parcel arrived, but the lamp inside is broken."}}]
answer = client.chat.completions.create(model="{job.fine_tuned_model}:support_triage", messages=query)
print(answer.choices[0].message.content)
""",
        markup=False,
    )


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
