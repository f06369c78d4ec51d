"""`manyicl plan` against a running service."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.jobs import TASKS, example_lines
from tests.services import BASE_MODEL


@pytest.fixture
def body(tmp_path: Path, installation: str, api_key: str) -> Path:
    """A body that names a local file, beside it, and the service's connection file."""
    connection = {"base_url": installation, "api_key": api_key}
    (tmp_path / "connection.json").write_text(json.dumps(connection), encoding="utf-8")
    lines = "\n".join(json.dumps(line) for line in example_lines(0, 12))
    (tmp_path / "train.jsonl").write_text(lines, encoding="utf-8")
    return write_body(tmp_path)


def write_body(folder: Path, **manyicl: Any) -> Path:
    options = {"tasks": TASKS, "max_sequence_tokens": 128, "lora": {"rank": 5}, **manyicl}
    path = folder / "body.json"
    path.write_text(json.dumps({"model": BASE_MODEL, "training_file": "train.jsonl", "manyicl": options}))
    return path


def manyicl_plan(body: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "manyicl_core.cli.main", "plan", str(body)]
    connection = ["--connection", str(body.parent / "connection.json")]
    return subprocess.run([*command, *connection], capture_output=True, text=True, check=False, env=dict(os.environ))


def test_a_local_file_is_planned_and_nothing_of_it_stays(body: Path, client: OpenAI) -> None:
    done = manyicl_plan(body)
    assert done.returncode == 0, done.stderr
    assert "The first sequence: task" in done.stdout
    assert "Output: " in done.stdout
    assert client.files.list().data == []


def test_what_the_service_refuses_is_said_in_a_line(body: Path, client: OpenAI) -> None:
    done = manyicl_plan(write_body(body.parent, objective="magic"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("manyicl: manyicl.objective: ")
    assert client.files.list().data == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda body: body.write_text("{"), "is not JSON"),
        (lambda body: body.unlink(), "give the file that holds the job's body"),
        (lambda body: (body.parent / "train.jsonl").unlink(), "training_file: "),
        (lambda body: (body.parent / "connection.json").unlink(), "start `manyicl up`, or give --connection"),
    ],
)
def test_a_missing_or_broken_file_is_named(body: Path, spoil: Any, said: str) -> None:
    spoil(body)
    done = manyicl_plan(body)
    assert done.returncode == 1
    assert done.stderr.startswith("manyicl: ")
    assert said in done.stderr
