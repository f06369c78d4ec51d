"""Projects, keys and scopes, by the unmodified client's ``client.admin.organization``."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from api.app import create_app
from manyicl_core.ids import new_id
from manyicl_core.store.projects.schemas import SCOPES
from tests.keys import client_of, make_key


@pytest.fixture
def operator(installation: str) -> Iterator[OpenAI]:
    with client_of(installation, make_key(SCOPES)) as client:
        yield client


@pytest.fixture
def admin(installation: str) -> Iterator[OpenAI]:
    with client_of(installation, make_key()) as client:
        yield client


def own_project(client: OpenAI) -> str:
    (project,) = client.admin.organization.projects.list().data
    return project.id


def post(client: OpenAI, project: str, path: str = "", **body: Any) -> dict[str, Any]:
    """A write that the ``openai`` client has no method for."""
    url = f"/organization/projects/{project}/api_keys{path}"
    return client.post(url, body=body, cast_to=object)  # type: ignore[return-value]


def test_an_operator_makes_a_project_and_its_admin_makes_rotates_and_revokes_keys(
    installation: str, operator: OpenAI
) -> None:
    name = new_id("team-")
    project = operator.admin.organization.projects.create(name=name)
    assert (project.object, project.status, project.name) == ("organization.project", "active", name)
    first = post(operator, project.id, name="first", scopes=["admin", "read", "write", "inference"])

    with client_of(installation, first["value"]) as admin:
        assert own_project(admin) == project.id
        keys = admin.admin.organization.projects.api_keys
        made = post(admin, project.id, name="ci")
        assert made["scopes"] == ["read", "write", "inference"]
        assert made["redacted_value"] == f"sk-manyicl-…{made['value'][-4:]}"
        assert [key.id for key in keys.list(project.id, limit=1)] == [made["id"], first["id"]]
        assert made["value"] not in keys.list(project.id).model_dump_json()

        with client_of(installation, made["value"]) as ci:
            assert ci.files.list().data == []
            kept = keys.update(made["id"], project_id=project.id, scopes=["write"])
            assert kept.model_extra is not None and kept.model_extra["scopes"] == ["write"]
            with pytest.raises(openai.PermissionDeniedError, match="'read'") as refused:
                ci.files.list()
            assert (refused.value.type, refused.value.code) == ("permission_error", "insufficient_scope")
            keys.update(made["id"], project_id=project.id, scopes=["read"])

            slow = post(admin, project.id, f"/{made['id']}/rotate", grace_seconds=3600)
            assert (slow["name"], slow["scopes"]) == ("ci", ["read"])
            assert ci.files.list().data == []
            assert keys.retrieve(made["id"], project_id=project.id).expires_at is not None
            with pytest.raises(openai.ConflictError, match="rotated before"):
                post(admin, project.id, f"/{made['id']}/rotate")
            assert keys.delete(made["id"], project_id=project.id).deleted
            with pytest.raises(openai.AuthenticationError):
                ci.files.list()
            with pytest.raises(openai.ConflictError, match="is revoked"):
                keys.delete(made["id"], project_id=project.id)

        # Without a grace the old key ends with the answer that holds the new one.
        second = admin.post(f"/organization/projects/{project.id}/api_keys/{first['id']}/rotate", cast_to=object)
        with pytest.raises(openai.AuthenticationError):
            keys.list(project.id)
    assert second["value"] != first["value"]  # type: ignore[index]
    with client_of(installation, second["value"]) as admin:  # type: ignore[index]
        assert {key.name for key in admin.admin.organization.projects.api_keys.list(project.id)} == {"first", "ci"}
        assert operator.admin.organization.projects.archive(project.id).status == "archived"
        with pytest.raises(openai.AuthenticationError):
            admin.models.list()
    with pytest.raises(openai.ConflictError, match="archived"):
        post(operator, project.id, name="late")


def test_no_key_hands_out_a_scope_that_it_lacks(installation: str, operator: OpenAI) -> None:
    name = new_id("p")
    with client_of(installation, make_key(["admin"], name)) as janitor:
        project = own_project(janitor)
        reader = post(operator, project, name="reader", scopes=["read"])["id"]
        make_key(SCOPES, name)
        keys = janitor.admin.organization.projects.api_keys
        operators = next(key.id for key in keys.list(project) if key.id != reader and key.name == "default")
        for refused in (
            lambda: post(janitor, project, name="x", scopes=["read"]),
            lambda: post(janitor, project, name="x"),
            lambda: post(janitor, project, f"/{reader}/rotate"),
            lambda: keys.update(reader, project_id=project, scopes=["read", "write"]),
            lambda: post(janitor, project, f"/{operators}/rotate"),
            lambda: keys.update(operators, project_id=project, scopes=["admin"]),
            lambda: keys.delete(operators, project_id=project),
            lambda: post(operator, project, name="x", scopes=["operator"]),
            lambda: operator.admin.organization.projects.api_keys.update(
                reader, project_id=project, scopes=["operator"]
            ),
            lambda: janitor.admin.organization.projects.create(name=new_id("p")),
            lambda: janitor.admin.organization.projects.update(project, name=new_id("p")),
            lambda: janitor.admin.organization.projects.archive(project),
        ):
            with pytest.raises(openai.PermissionDeniedError) as error:
                refused()
            assert error.value.code == "insufficient_scope"
        # Less is always the janitor's to give, and to take.
        assert keys.delete(reader, project_id=project).deleted
        assert post(janitor, project, name="another janitor", scopes=["admin"])["scopes"] == ["admin"]


def test_the_last_admin_key_of_a_project_ends_by_an_operator_only(admin: OpenAI, operator: OpenAI) -> None:
    project = own_project(admin)
    keys = admin.admin.organization.projects.api_keys
    (last,) = keys.list(project)
    with pytest.raises(openai.ConflictError) as refused:
        keys.delete(last.id, project_id=project)
    assert refused.value.code == "last_admin_key"
    with pytest.raises(openai.ConflictError):
        keys.update(last.id, project_id=project, scopes=["read"])
    other = post(admin, project, name="other", scopes=["admin"])["id"]
    assert keys.update(last.id, project_id=project, scopes=["admin", "read"]).id == last.id
    assert keys.delete(other, project_id=project).deleted
    assert operator.admin.organization.projects.api_keys.delete(last.id, project_id=project).deleted


@pytest.mark.parametrize("name", ["", "a b", "ft:x", "-x", "a/b", "x" * 65])
def test_a_projects_name_fits_into_its_models_ids(operator: OpenAI, name: str) -> None:
    with pytest.raises(openai.BadRequestError, match="letters, digits") as refused:
        operator.admin.organization.projects.create(name=name)
    assert refused.value.param == "name"


def test_projects_have_one_name_each_and_an_operator_keeps_its_own(operator: OpenAI) -> None:
    projects = operator.admin.organization.projects
    name, other = new_id("p"), new_id("p")
    projects.create(name=name)
    renamed = projects.create(name=other)
    for refused in (lambda: projects.create(name=name), lambda: projects.update(renamed.id, name=name)):
        with pytest.raises(openai.ConflictError, match="already"):
            refused()
    assert projects.update(renamed.id, name=other + "x").name == other + "x"
    assert projects.retrieve(renamed.id).name == other + "x"


def test_projects_are_listed_in_pages_and_no_operator_archives_its_own(installation: str) -> None:
    own = new_id("p")
    with client_of(installation, make_key(SCOPES, own)) as client:
        projects = client.admin.organization.projects
        made = [projects.create(name=new_id("p")).id for _ in range(2)]
        listed = iter(projects.list(limit=1))
        assert [next(listed).id for _ in made] == made[::-1]
        mine = next(project for project in listed if project.name == own)
        with pytest.raises(openai.BadRequestError, match="open nothing"):
            projects.archive(mine.id)
        projects.archive(made[1])
        assert projects.list(limit=1).data[0].id == made[0]
        assert projects.list(limit=1, include_archived=True).data[0].id == made[1]


def test_nothing_of_a_strangers_body_is_read(installation: str) -> None:
    headers = [(b"authorization", b"Bearer sk-wrong"), (b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "path": "/v1/files", "query_string": b"", "headers": headers}
    answered: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        answered.append(message)

    asyncio.run(create_app()(scope, receive, send))
    assert [message["status"] for message in answered if "status" in message] == [401]
