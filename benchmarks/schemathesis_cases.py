"""Schemathesis over every route: ``python -m benchmarks.schemathesis_cases --json FILE [--quick] [--cases N]``.

At least 20,000 generated cases for each of two seeds (1,000 for one seed with ``--quick``), all
phases and all checks, against an installation with a tiny model. The examples of the document get
the ids of real files, so that jobs, contexts, evaluations and batches are made and their routes
meet ids that exist. ``failures`` and ``server_errors`` must be 0.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console

from api.examples import EXAMPLES
from benchmarks.api_process import Api
from benchmarks.installation import TINY_MODEL, running_installation
from manyicl_core.contract.progress import Measured, MeasuredBatch
from manyicl_core.contract.train_spec import LoraSpec
from manyicl_core.settings import DEFAULT_BASE_MODEL
from manyicl_core.store.measurements.service import Wanted, measured_kind, record_measurement
from manyicl_core.store.session import transaction

_CONFIG = Path(__file__).resolve().with_name("schemathesis.toml")
_MEASURED = Measured(
    device="cpu",
    dtype="float32",
    threads=1,
    start_seconds=1.0,
    optimizer_seconds=0.1,
    checkpoint_seconds=0.1,
    batches=[MeasuredBatch(tokens=64, targets=64, seconds=0.1, scoring_seconds=0.1, peak_memory_bytes=1 << 20)],
)
"""Without one, every plan asks for it, and waits seconds for a worker that is not there."""

_ALL_PHASES = ("examples", "coverage", "fuzzing", "stateful")


def main() -> int:
    """Run every seed and write the figures; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="1,000 cases and one seed")
    parser.add_argument("--cases", type=int, default=20_000, help="generated cases a seed, at least")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    cases, seeds = (1000, arguments.seeds[:1]) if arguments.quick else (arguments.cases, arguments.seeds)
    with tempfile.TemporaryDirectory(prefix="manyicl-") as folder, running_installation(Path(folder)) as api:
        result = measure(api, Path(folder), cases, seeds)
    Console().print(result)
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    failed = result["failures"] or result["server_errors"] or not result["key_holds"]
    return 1 if failed or result["cases"] < cases * len(seeds) else 0


def measure(api: Api, folder: Path, cases: int, seeds: Sequence[int]) -> dict[str, Any]:
    """The figures of all seeds together, and of each."""
    reports = []
    with transaction() as session:
        record_measurement(session, Wanted(TINY_MODEL, measured_kind(LoraSpec())), _MEASURED)
    for seed in seeds:
        document = write_document(api.base_url, api.api_key, TINY_MODEL, folder)
        operations = sum(len(methods) for methods in json.loads(document.read_text(encoding="utf-8"))["paths"].values())
        examples = math.ceil(cases / operations)
        reports.append(run_cases(api.base_url, api.api_key, document, seed, examples, _ALL_PHASES))
    return {
        "operations": operations,
        "cases": sum(report["test_cases"]["generated"] for report in reports),
        "failures": sum(report["test_cases"]["unique_failures"] + len(report["errors"]) for report in reports),
        "server_errors": sum(
            failure["count"] for report in reports for failure in report["failures"] if failure["type"] == "ServerError"
        ),
        "key_holds": _holds(api),
        "api_peak_memory_bytes": api.peak_memory_bytes(),
        "seeds": [{key: report[key] for key in ("seed", "test_cases", "running_time", "phases")} for report in reports],
    }


def _holds(api: Api) -> bool:
    """Whether the key still opens something: one of the cases may revoke it, and the rest then proves little."""
    headers = {"authorization": f"Bearer {api.api_key}"}
    return httpx2.get(f"{api.base_url}/files", headers=headers, timeout=60).is_success


def write_document(base_url: str, key: str, model: str, folder: Path) -> Path:
    """The service's OpenAPI document, its examples with a model and files that are there."""
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=base_url, headers=headers, timeout=60) as client:

        def upload(content: str, purpose: str) -> str:
            files = {"file": ("example.jsonl", content)}
            return str(client.post("/files", data={"purpose": purpose}, files=files).raise_for_status().json()["id"])

        lines = EXAMPLES["create_file"]["file"]
        request = {
            "custom_id": "a",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": EXAMPLES["create_chat_completion"],
        }
        real = {
            DEFAULT_BASE_MODEL: model,
            "file-tasks": upload(lines, "fine-tune"),
            "file-queries": upload(lines.replace("parcel", "letter").replace("twice", "again"), "fine-tune"),
            "file-requests": upload(json.dumps(request).replace(DEFAULT_BASE_MODEL, model), "batch"),
        }
        text = client.get(base_url.removesuffix("/v1") + "/openapi.json").raise_for_status().text
    for placeholder, value in real.items():
        text = text.replace(placeholder, value)
    path = folder / "openapi.json"
    path.write_text(text, encoding="utf-8")
    return path


def run_cases(
    base_url: str, key: str, document: Path, seed: int, examples: int, phases: Sequence[str]
) -> dict[str, Any]:
    """Schemathesis's report on ``examples`` cases an operation and what its other phases add.

    Its own words on every failure go to standard output.
    """
    report = document.with_name(f"report-{seed}.json")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(_CONFIG), "--no-color", "run"]
    options = {
        "--url": base_url.removesuffix("/v1"),
        "--header": f"Authorization: Bearer {key}",
        "--checks": "all",
        "--phases": ",".join(phases),
        "--seed": str(seed),
        "--max-examples": str(examples),
        "--request-timeout": "120",
        "--suppress-health-check": "all",
        "--warnings": "off",
        "--report": "json",
        "--report-json-path": str(report),
    }
    arguments = [text for option in options.items() for text in option]
    command += [str(document), *arguments, "--continue-on-failure", "--no-shrink"]
    subprocess.run(command, check=False, cwd=document.parent)  # where it puts its cache
    read: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return read


if __name__ == "__main__":
    sys.exit(main())
