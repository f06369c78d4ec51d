"""lm-evaluation-harness against our api and in process: the same accuracy, to the item.

``python -m benchmarks.lm_eval_agreement --model FOLDER --json FILE [--quick]``. The task is a local
file: the labels of the sample tasks as choices. One side is the harness's ``local-completions``
(token ids in, ``echo`` and ``logprobs`` out) against engine and api as processes; the other its own
``hf`` model, plain transformers in its own process. Both compute in float32: in bfloat16 the order
of two sums decides between choices that are nearly as likely.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.api_process import Api, running_api
from benchmarks.engine_under_load import running_engine
from benchmarks.peers.environment import peer_python

TASKS = Path(__file__).resolve().parents[1] / "examples" / "tasks"
NAME = "sample_labels"
MODEL = "benchmark/model"
QUICK_ITEMS = 6


@dataclass(frozen=True, slots=True)
class Item:
    """One item's result: of each choice its log-likelihood, and whether it is what the model would write."""

    right: bool
    choices: list[tuple[float, bool]]


def main() -> int:
    """Score on both sides and compare; the status tells whether they agree to the item."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a base model")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ITEMS} items a task: two minutes")
    arguments = parser.parse_args()
    python = peer_python("lm_eval", ["lm-eval[api,hf]==0.4.13", "datasets==5.2.0"], ["torch", "transformers"])
    model = arguments.model.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_task(folder / "task", QUICK_ITEMS if arguments.quick else None)
        in_process = [f"pretrained={model}", "dtype=float32"]
        theirs = run_harness(python, folder, "hf", in_process, {})
        settings = {"model_folder": str(model), "base_model": MODEL}
        with (
            running_engine(folder, "benchmarks.engine_in_float32", **settings) as url,
            running_api(folder, url, settings) as api,
        ):
            ours = run_harness(
                python, folder, "local-completions", over_api(api, model), {"OPENAI_API_KEY": api.api_key}
            )
    figures = compare(ours, theirs)
    table = Table("figure", "value")
    for key, value in figures.items():
        table.add_row(key, str(value))
    Console().print(table)
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if figures["items_that_differ"] == 0 else 1


def write_task(folder: Path, most: int | None) -> None:
    """A task of the harness, out of the sample tasks that have labels."""
    folder.mkdir()
    rows = [json.dumps(row) for path in sorted(TASKS.glob("*/task.json")) for row in items(path.parent)[:most]]
    (folder / "items.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    # YAML of which JSON is a part.
    task = {
        "task": NAME,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "items.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [{"metric": "acc"}],
    }
    (folder / f"{NAME}.yaml").write_text(json.dumps(task, indent=2), encoding="utf-8")


def items(folder: Path) -> list[dict[str, Any]]:
    """A sample task's test lines with their choices; none if it has no labels."""
    definition = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    labels = definition["labels"] or []
    return [
        {
            "prompt": f"{definition['instruction']}\n\nInput: {line['input']}\nOutput:",
            "choices": labels,
            "gold": labels.index(line["output"]),
        }
        for line in lines
        if labels
    ]


def over_api(api: Api, model: Path) -> list[str]:
    """The harness's arguments for a server that completes."""
    url = f"base_url={api.base_url}/completions"
    return [f"model={MODEL}", url, f"tokenizer={model}", "num_concurrent=2", "max_length=2048"]


def run_harness(python: Path, folder: Path, kind: str, model: list[str], environment: dict[str, str]) -> list[Item]:
    """Run it as its users do, offline; gives the items in their order."""
    results = folder / kind
    command = [
        str(python), "-m", "lm_eval", "--model", kind, "--model_args", ",".join(model), "--tasks", NAME,
        "--include_path", str(folder / "task"), "--batch_size", "4", "--output_path", str(results), "--log_samples",
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    done = subprocess.run(
        command, env={**os.environ, **offline, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"lm_eval failed:\n{done.stderr[-4000:]}")
    [samples] = results.rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    return [item(row) for row in sorted(rows, key=lambda row: int(row["doc_id"]))]


def item(row: dict[str, Any]) -> Item:
    """One of the harness's samples."""
    return Item(row["acc"] == 1.0, [(float(logprob), is_greedy) for logprob, is_greedy in row["filtered_resps"]])


def compare(ours: list[Item], theirs: list[Item]) -> dict[str, Any]:
    """What is the same and what is not."""
    pairs = list(zip(ours, theirs, strict=True))
    choices = [pair for mine, its in pairs for pair in zip(mine.choices, its.choices, strict=True)]
    return {
        "items": len(pairs),
        "choices": len(choices),
        "accuracy_over_the_api": sum(mine.right for mine in ours) / len(pairs),
        "accuracy_in_process": sum(its.right for its in theirs) / len(pairs),
        "items_that_differ": sum(mine.right != its.right for mine, its in pairs),
        "greedy_flags_that_differ": sum(mine[1] != its[1] for mine, its in choices),
        "largest_log_likelihood_difference": max(abs(mine[0] - its[0]) for mine, its in choices),
    }


if __name__ == "__main__":
    sys.exit(main())
