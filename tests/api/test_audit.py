"""The audit log has every write that was answered as done."""

import json

import httpx2
import openai
import pytest
from openai import OpenAI
from sqlalchemy.exc import OperationalError

import api.audit
from manyicl_core.store.projects.schemas import SCOPES
from tests.contexts import PASTED, create_context, delete_context
from tests.jobs import example_lines, upload
from tests.keys import client_of, make_key
from tests.services import BASE_MODEL


def test_every_write_that_succeeds_has_a_row_and_nothing_else(installation: str) -> None:
    with client_of(installation, make_key()) as client:
        logs = client.admin.organization.audit_logs
        (project,) = client.admin.organization.projects.list().data
        file = upload(client, example_lines(0, 4))
        created = client.files.with_raw_response.delete(file)
        context = create_context(client, **PASTED)["id"]
        delete_context(client, context)
        key = client.post(f"/organization/projects/{project.id}/api_keys", body={"name": "k"}, cast_to=dict)["id"]
        # Neither what reads, nor what answers, nor what fails is a write.
        client.files.list()
        client.chat.completions.create(model=BASE_MODEL, messages=[{"role": "user", "content": "x"}], max_tokens=1)
        with pytest.raises(openai.NotFoundError):
            client.files.delete(file)
        with pytest.raises(openai.BadRequestError):
            create_context(client)

        rows = list(logs.list(limit=2))
        assert [(row.type, row.model_extra["resource_id"], row.model_extra["status"]) for row in rows] == [  # type: ignore[index]
            ("api_key.created", key, 200),
            ("DELETE /v1/contexts/{context_id}", context, 200),
            ("POST /v1/contexts", context, 200),
            ("DELETE /v1/files/{file_id}", file, 200),
            ("POST /v1/files", file, 200),
        ]
        assert rows[3].model_extra is not None
        assert rows[3].model_extra["request_id"] == created.headers["x-request-id"]
        assert {row.project.id for row in rows if row.project} == {project.id}
        (own,) = [key_ for key_ in client.admin.organization.projects.api_keys.list(project.id) if key_.id != key]
        assert {row.actor.api_key.id for row in rows if row.actor and row.actor.api_key} == {own.id}


def test_a_project_reads_what_an_operator_did_to_it_and_an_operator_reads_all(installation: str) -> None:
    with client_of(installation, make_key()) as admin, client_of(installation, make_key(SCOPES)) as operator:
        (project,) = admin.admin.organization.projects.list().data
        keys = f"/organization/projects/{project.id}/api_keys"
        operator.post(keys, body={"name": "k"}, cast_to=object)
        made = operator.admin.organization.projects.create(name=project.name + "x").id  # type: ignore[operator]
        for client, types in ((admin, ["api_key.created"]), (operator, ["project.created", "api_key.created"])):
            rows = client.admin.organization.audit_logs.list(limit=2).data
            assert [row.type for row in rows][: len(types)] == types
        assert [row.model_extra["resource_id"] for row in rows[:1]] == [made]  # type: ignore[index]
        with pytest.raises(openai.NotFoundError):
            admin.admin.organization.audit_logs.list(after=rows[0].id)


def test_a_write_without_its_row_is_not_answered_as_done(
    monkeypatch: pytest.MonkeyPatch, client: OpenAI, installation: str, api_key: str
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("INSERT", {}, Exception("the database is away"))

    monkeypatch.setattr(api.audit, "record_write", away)
    answer = httpx2.post(
        f"{installation}/contexts",
        content=json.dumps(PASTED),
        headers={"authorization": f"Bearer {api_key}", "content-type": "application/json"},
    )
    assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "false")
    assert answer.json()["error"]["code"] == "audit_failed"
    assert answer.headers["x-request-id"].startswith("req_")
    assert client.models.list().data
