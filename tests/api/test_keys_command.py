"""`manyicl projects` and `manyicl keys` against a running service."""

import json
from collections.abc import Callable
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from typer.testing import CliRunner

from manyicl_core.cli.main import app
from manyicl_core.ids import new_id
from manyicl_core.store.projects.schemas import SCOPES
from tests.keys import client_of, make_key

Run = Callable[..., str]


@pytest.fixture
def run(installation: str, tmp_path: Path) -> Run:
    """Runs a command as an operator; gives what it prints to be read on."""
    connection = tmp_path / "connection.json"
    connection.write_text(json.dumps({"base_url": installation, "api_key": make_key(SCOPES)}), encoding="utf-8")

    def run_(group: str, *arguments: str, fails: bool = False) -> str:
        done = CliRunner().invoke(app, [group, "--connection", str(connection), *arguments])
        assert (done.exit_code != 0) == fails, done.output
        return (done.stderr if fails else done.stdout).strip()

    return run_


def test_a_project_and_its_keys_are_made_shown_rotated_and_revoked(run: Run, installation: str) -> None:
    name = new_id("team-")
    project = run("projects", "create", name)
    assert project in run("projects", "list")
    secret = run("keys", "create", "ci", "--scope", "read", "--project", name)
    with client_of(installation, secret) as client:
        assert client.files.list().data == []
        listed = run("keys", "list", "--project", project)
        assert f"sk-manyicl-…{secret[-4:]}" in listed and secret not in listed
        key_id = next(word for word in listed.split() if word.startswith("key_"))
        new = run("keys", "rotate", key_id, "--project", name)
        with pytest.raises(openai.AuthenticationError):
            client.files.list()
    with OpenAI(base_url=installation, api_key=new, max_retries=0) as client:
        assert client.files.list().data == []
        (key_id,) = [word for word in run("keys", "list", "--project", name).split() if word.startswith("key_")]
        run("keys", "revoke", key_id, "--project", name)
        with pytest.raises(openai.AuthenticationError):
            client.files.list()
    run("projects", "archive", name)
    assert "archived" in run("projects", "list")


def test_what_the_service_refuses_and_what_is_missing_is_one_line(run: Run, tmp_path: Path) -> None:
    assert run("projects", "create", "a b", fails=True).startswith("manyicl: name: a project's name")
    assert "name one project with --project" in run("keys", "list", fails=True)
    (tmp_path / "connection.json").unlink()
    assert "start `manyicl up`, or give --connection" in run("keys", "list", fails=True)


def test_bootstrap_makes_a_key_that_opens_everything(installation: str) -> None:
    done = CliRunner().invoke(app, ["keys", "bootstrap", "--project", new_id("p")])
    with client_of(installation, done.stdout.strip()) as client:
        assert client.models.list().data
        assert client.admin.organization.projects.create(name=new_id("p")).status == "active"
