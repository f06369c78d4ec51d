"""The installed version of the client; ``benchmarks.client_versions`` tries three of them."""

from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from manyicl_core.ids import new_id
from manyicl_core.store.projects.schemas import SCOPES
from manyicl_core.store.projects.service import get_or_create_project
from manyicl_core.store.session import transaction
from tests.clients.methods import PASSED
from tests.clients.suite import try_all
from tests.finished_jobs import finish
from tests.jobs import create_job
from tests.keys import make_key
from tests.services import BASE_MODEL


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # the client's own, for methods that are deprecated
def test_every_method_of_the_client_works_and_its_answer_is_what_the_client_expects(
    client: OpenAI, installation: str, api_key: str, tiny_model: Path, tmp_path: Path
) -> None:
    job = create_job(client, evaluate=False)
    finish(job.id, tiny_model, tmp_path)
    with transaction() as session:
        other_project = get_or_create_project(session, new_id("p")).id
    with strict_client(installation, api_key) as strict:
        results = try_all(strict, BASE_MODEL, other_project, job.id)
    failed = [f"{name}: {result}" for name, result in results.items() if result != PASSED]
    assert not failed, "\n".join(failed)


def test_what_manages_projects_is_what_the_client_expects(installation: str) -> None:
    name = new_id("p")
    with strict_client(installation, make_key(SCOPES)) as client:
        projects: Any = client.admin.organization.projects
        project = projects.create(name=name)
        assert projects.update(project.id).name == name, "nothing is asked for"
        assert projects.update(project.id, name=f"{name}x").name == projects.retrieve(project.id).name == f"{name}x"
        body = {"name": "k"}
        key: Any = client.post(f"/organization/projects/{project.id}/api_keys", body=body, cast_to=object)
        assert [found.id for found in projects.api_keys.list(project.id)] == [key["id"]]
        assert projects.api_keys.retrieve(key["id"], project_id=project.id).name == "k"
        assert projects.api_keys.delete(key["id"], project_id=project.id).deleted
        assert projects.archive(project.id).status == "archived"
        assert projects.list(include_archived=True).data
        rows = client.admin.organization.audit_logs.list(limit=5).data
        types = ["project.archived", "api_key.deleted", "api_key.created", "project.updated", "project.updated"]
        assert [row.type for row in rows] == types


def strict_client(installation: str, key: str) -> OpenAI:
    """The client as it refuses every answer that is not of the type that it promises."""
    return OpenAI(
        base_url=installation, api_key=key, admin_api_key=key, max_retries=0, _strict_response_validation=True
    )
