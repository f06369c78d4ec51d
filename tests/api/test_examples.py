"""The examples of the documentation, sent to a running service."""

import json
from typing import Any

import httpx2

from api.app import create_app
from api.examples import EXAMPLES
from manyicl_core.settings import DEFAULT_BASE_MODEL
from manyicl_core.store.projects.schemas import SCOPES
from tests.keys import make_key
from tests.services import BASE_MODEL

_FIRST = (
    "create_file",
    "create_upload",
    "create_upload_part",
    "create_webhook_endpoint",
    "create_project",
    "create_key",
)
# These need somebody to receive it, and a model that a job made.
_ELSEWHERE = ("test_webhook_endpoint", "create_permissions")
_REQUEST = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": EXAMPLES["create_chat_completion"],
}


def test_every_example_of_the_documentation_runs(installation: str) -> None:
    ids = {DEFAULT_BASE_MODEL: BASE_MODEL}
    paths = {
        operation["operationId"]: path
        for path, methods in create_app().openapi()["paths"].items()
        for method, operation in methods.items()
        if method == "post"
    }
    with httpx2.Client(headers={"authorization": f"Bearer {make_key(SCOPES)}"}, timeout=60) as client:

        def send(name: str, example: dict[str, Any]) -> str:
            url = installation.removesuffix("/v1") + paths[name]
            written = json.dumps(example)
            for placeholder, id_ in ids.items():
                url = url.replace(placeholder, id_)
                written = written.replace(placeholder, id_)
            body = json.loads(written)
            files = {key: ("example.jsonl", body.pop(key)) for key in ("file", "data") if key in body}
            response = client.post(url, data=body, files=files) if files else client.post(url, json=body)
            assert response.status_code in (200, 201), f"{name}: {response.text}"
            return str(response.json().get("id"))

        ids["file-tasks"] = send("create_file", EXAMPLES["create_file"])
        other = EXAMPLES["create_file"]["file"].replace("parcel", "letter").replace("twice", "again")
        ids["file-queries"] = send("create_file", {**EXAMPLES["create_file"], "file": other})
        ids["file-requests"] = send("create_file", {"purpose": "batch", "file": json.dumps(_REQUEST)})
        ids["{upload_id}"] = send("create_upload", EXAMPLES["create_upload"])
        ids["{endpoint_id}"] = send("create_webhook_endpoint", EXAMPLES["create_webhook_endpoint"])
        ids["part-first"] = send("create_upload_part", EXAMPLES["create_upload_part"])
        ids["{project_id}"] = send("create_project", EXAMPLES["create_project"])
        ids["{api_key_id}"] = send("create_key", EXAMPLES["create_key"])
        for name, example in EXAMPLES.items():
            if name not in _FIRST + _ELSEWHERE:
                send(name, example)
