"""What pages and other strangers to the client meet: CORS, HEAD, and paths that are not there."""

import httpx2
import pytest
from openai import OpenAI

from api.app import create_app
from manyicl_core.embedded import free_port
from manyicl_core.settings import get_settings
from tests.services import serving

PAGE = "https://page.example.org"


def test_pages_of_listed_origins_alone_may_call(
    monkeypatch: pytest.MonkeyPatch, installation: str, api_key: str
) -> None:
    monkeypatch.setattr(get_settings(), "cors_origins", f"http://localhost:1, {PAGE}/")
    port = free_port()
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-stainless-os"}
    with serving(create_app(), port), httpx2.Client(base_url=f"http://127.0.0.1:{port}/v1") as http:
        for origin, allowed in ((PAGE, PAGE), ("https://other.example.org", None)):
            told = http.options("/chat/completions", headers={"origin": origin, **asked})  # without a key
            assert told.headers.get("access-control-allow-origin") == allowed
            for key, status in ((api_key, 400), ("wrong", 401)):
                headers = {"origin": origin, "authorization": f"Bearer {key}"}
                refused = http.post("/chat/completions", json={}, headers=headers)
                assert (refused.status_code, refused.headers.get("access-control-allow-origin")) == (status, allowed)
                assert refused.json()["error"]["message"]
        exposed = http.get("/models", headers={"origin": PAGE}).headers["access-control-expose-headers"]
        assert "x-request-id" in exposed and "x-ratelimit-reset-tokens" in exposed and "retry-after-ms" in exposed


def test_no_page_may_call_by_default(installation: str, api_key: str) -> None:
    headers = {"origin": PAGE, "authorization": f"Bearer {api_key}"}
    answer = httpx2.get(f"{installation}/models", headers=headers)
    assert answer.status_code == 200 and not any(name.startswith("access-control") for name in answer.headers)


def test_head_is_get_without_a_body(client: OpenAI, installation: str, api_key: str) -> None:
    file = client.files.create(file=("a.txt", b"x" * 1000), purpose="user_data")
    with httpx2.Client(base_url=installation, headers={"authorization": f"Bearer {api_key}"}) as http:
        head = http.head(f"/files/{file.id}/content")
        assert (head.status_code, head.headers["content-length"], head.content) == (200, "1000", b"")
        assert http.head("/models").status_code == 200
        assert http.head("/files/file-none").status_code == 404
        assert http.head(f"{installation.removesuffix('/v1')}/health").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "near"),
    [
        ("POST", "/v1/chat/completion", "POST /v1/chat/completions"),
        ("POST", "/chat/completions", "POST /v1/chat/completions"),
        ("POST", "/v1/v1/chat/completions", "POST /v1/chat/completions"),
        ("GET", "/v1/file/file-abc", "GET /v1/files/{file_id}"),
        ("POST", "/v1/fine-tunes/jobs", "POST /v1/fine_tuning/jobs"),
        ("POST", "/v1/embeddings", "GET /openapi.json has all routes"),
        ("GET", "/v1/responses/resp_1", "nothing of a response is kept"),
    ],
)
def test_a_path_that_is_not_there_is_told_with_what_is_near(
    installation: str, api_key: str, method: str, path: str, near: str
) -> None:
    url = installation.removesuffix("/v1") + path
    answer = httpx2.request(method, url, headers={"authorization": f"Bearer {api_key}"})
    assert answer.status_code == 404
    message = answer.json()["error"]["message"]
    assert near in message and path in message
