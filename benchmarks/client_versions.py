"""Three versions of the ``openai`` client against one installation: a table of every method.

``python -m benchmarks.client_versions --json FILE``. Each version has an environment of its own under
``.bench/`` and runs ``tests/clients/suite.py`` in a project of its own against ``manyicl up``, workers
and all, with a tiny random base model.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from openai import OpenAI
from rich.console import Console
from rich.table import Table

from benchmarks.peers.environment import peer_python
from examples.service import start_service
from tests.clients.methods import PASSED
from tests.tiny_model import make_tiny_model

VERSIONS = ("3.52.0", "2.54.0", "1.109.1")
MODEL = "benchmark/tiny-llama"
ABSENT = "-"


def main() -> int:
    """Try all versions; the status tells whether every method of each has passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    arguments = parser.parse_args()
    pythons = {version: peer_python(f"openai-{version}", [f"openai=={version}"], []) for version in VERSIONS}
    with tempfile.TemporaryDirectory(prefix="manyicl-clients-") as name:
        folder = Path(name)
        os.environ["MANYICL_MODEL_FOLDER"] = str(make_tiny_model(folder / "model"))
        os.environ["MANYICL_BASE_MODEL"] = MODEL
        os.environ["MANYICL_WEBHOOK_PRIVATE_ADDRESSES"] = "true"
        service, connection = start_service(folder / "data")
        try:
            with OpenAI(**connection) as operator:  # type: ignore[arg-type]
                neighbour = make_project(operator, "neighbour")
                results = {
                    version: run_suite(python, operator, make_project(operator, version), neighbour)
                    for version, python in pythons.items()
                }
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait()
    table = Table("method", *VERSIONS)
    for method in sorted({method for of_version in results.values() for method in of_version}):
        table.add_row(method, *(results[version].get(method, ABSENT) for version in VERSIONS))
    Console().print(table)
    arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0 if all(set(of_version.values()) == {PASSED} for of_version in results.values()) else 1


def make_project(operator: OpenAI, name: str) -> str:
    """A new project; gives its id."""
    project: Any = operator.post("/organization/projects", body={"name": name}, cast_to=object)
    return str(project["id"])


def run_suite(python: Path, operator: OpenAI, project: str, neighbour: str) -> dict[str, str]:
    """What came out for each method of one version, with a key of ``project``."""
    path = f"/organization/projects/{project}/api_keys"
    key: Any = operator.post(path, body={"name": "clients"}, cast_to=object)
    environment = {"OPENAI_BASE_URL": str(operator.base_url), "OPENAI_API_KEY": key["value"]}
    command = [str(python), "-m", "tests.clients.suite", "--model", MODEL, "--other-project", neighbour]
    done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=False)
    told = json.loads(done.stdout)
    assert python.parent.parent.name == f"openai-{told['version']}"
    methods: dict[str, str] = told["methods"]
    return methods


if __name__ == "__main__":
    sys.exit(main())
