import gzip

import httpx2
import openai
import pytest
from openai import OpenAI

from api.app import create_app
from manyicl_core.embedded import free_port
from manyicl_core.settings import get_settings
from manyicl_core.store.models import service as models_service
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import ApiKey
from tests.services import serving


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("PUT", "/v1/files", 405), ("GET", "/v1/files?limit=0", 400)],
)
def test_every_error_is_the_envelope_with_a_request_id(
    installation: str, api_key: str, method: str, path: str, status: int
) -> None:
    url = installation.removesuffix("/v1") + path
    response = httpx2.request(method, url, headers={"authorization": f"Bearer {api_key}"})
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", ["fine_tuning/jobs", "contexts", "chat/completions", "batches", "uploads"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "JSON"),
        (b"\xff", "UTF-8"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"model": ' + b"9" * 5000 + b"}", "64 bits"),
        (b'{"seed": NaN}', "NaN"),
        (b'{"temperature": 1e999}', "too large"),
        (b'{"model": "\\ud800"}', "surrogate"),
        (b'{"metadata": {"a": "\\u0000"}}', "NUL"),
        (b'{"model": "a", "model": "b"}', "occurs twice"),
        (b"[" + b"1," * 300_000 + b"1]", "values"),
        (b'"just a text"', ""),
    ],
)
def test_a_body_that_would_break_something_is_refused(
    installation: str, api_key: str, path: str, body: bytes, said: str
) -> None:
    headers = {"authorization": f"Bearer {api_key}", "content-type": "application/json"}
    response = httpx2.post(f"{installation}/{path}", content=body, headers=headers)
    assert response.status_code == 400
    assert said in response.json()["error"]["message"]


def test_a_method_that_a_route_lacks_is_answered_with_those_it_has(installation: str, api_key: str) -> None:
    expected = {
        "files": "GET, POST",
        "files/file-1": "DELETE, GET",
        "models/a/b": "DELETE, GET",
        "models/a/b/artifacts": "GET",
        "models/a/b/artifacts/card": "GET",
        "fine_tuning/jobs/plan": "POST",
    }
    for path, allowed in expected.items():
        response = httpx2.patch(f"{installation}/{path}", headers={"authorization": f"Bearer {api_key}"})
        assert (response.status_code, response.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("key", ["sk-wrong", "sk-manyicl-" + "x" * 43])
def test_a_wrong_key_is_unauthorized(installation: str, key: str) -> None:
    stranger = OpenAI(base_url=installation, api_key=key, max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError) as refused:
        stranger.models.list()
    assert refused.value.code == "invalid_api_key"
    assert refused.value.request_id


def test_no_key_is_unauthorized(installation: str) -> None:
    response = httpx2.get(f"{installation}/models")
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")


def test_keys_are_stored_as_hashes_only(client: OpenAI, api_key: str) -> None:
    with transaction() as session:
        stored = [key.hash for key in session.query(ApiKey)]
    assert stored
    assert not any(api_key in value or value in api_key for value in stored)


def test_health_tells_of_database_and_engine(installation: str) -> None:
    response = httpx2.get(installation.removesuffix("/v1") + "/health")
    assert response.json() == {"database": True, "engine": True}


def test_a_body_over_the_limit_is_refused_in_the_envelope(monkeypatch: pytest.MonkeyPatch, client: OpenAI) -> None:
    # An application of its own, with a small limit, on the same database.
    monkeypatch.setattr(get_settings(), "max_file_bytes", 1000)
    port = free_port()
    with serving(create_app(), port):
        small = client.with_options(base_url=f"http://127.0.0.1:{port}/v1")
        for size in (2000, 3 << 20):
            with pytest.raises(openai.APIStatusError) as refused:
                small.files.create(file=("a.jsonl", b"x" * size), purpose="fine-tune")
            assert refused.value.status_code == 413
            assert "1000" in refused.value.message or "1049576" in refused.value.message
            assert refused.value.type == "invalid_request_error"
            assert refused.value.request_id
        with pytest.raises(openai.APIStatusError, match="8388608 bytes") as refused:
            small.batches.create(input_file_id="x" * (9 << 20), endpoint="/v1/embeddings", completion_window="24h")
        assert refused.value.status_code == 413


def test_a_mistake_of_ours_is_an_envelope_with_a_request_id(monkeypatch: pytest.MonkeyPatch, client: OpenAI) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(models_service, "list_models", broken)
    with pytest.raises(openai.InternalServerError) as failed:
        client.models.list()
    assert failed.value.type == "server_error"
    assert failed.value.request_id
    assert "secret" not in str(failed.value)


def test_text_that_the_database_cannot_hold_is_a_bad_request(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="NUL"):
        client.files.list(after="file-\0")
    with pytest.raises(openai.BadRequestError, match="NUL"):
        client.models.retrieve("ft:\0")


@pytest.mark.parametrize(
    ("headers", "content", "said"),
    [
        ({}, b'{"model": "m"}', "content-type: give application/json, not none at all"),
        ({"content-type": "text/plain"}, b'{"model": "m"}', "content-type: give application/json, not 'text/plain'"),
        ({"content-encoding": "gzip"}, gzip.compress(b"{}", mtime=0), "content-encoding: the body comes as 'gzip'"),
        ({"content-type": "application/json"}, gzip.compress(b"{}", mtime=0), "this is gzip"),
        ({"content-type": "application/json"}, '{"model": "m"}'.encode("utf-16"), "this is UTF-16"),
        ({"content-type": "application/json"}, b"", "the body is missing; send a JSON object"),
        ({"content-type": "application/json"}, b"[]", "the body is a list of 0; send a JSON object"),
    ],
)
def test_a_body_that_comes_in_another_way_is_told_how(
    installation: str, api_key: str, headers: dict[str, str], content: bytes, said: str
) -> None:
    headers = {"authorization": f"Bearer {api_key}", **headers}
    response = httpx2.post(f"{installation}/chat/completions", content=content, headers=headers)
    assert response.status_code == 400
    assert said in response.json()["error"]["message"]


def test_a_form_that_comes_in_another_way_is_told_how(installation: str, api_key: str) -> None:
    with httpx2.Client(headers={"authorization": f"Bearer {api_key}"}) as http:
        for sent in ({"json": {"purpose": "batch"}}, {"content": b"x"}):
            response = http.post(f"{installation}/files", **sent)
            assert "content-type: give multipart/form-data" in response.json()["error"]["message"]
        unknown = http.post(f"{installation}/files", data={"purpose": "x"}, files={"file": ("a", b"x")})
        assert "purpose: give 'fine-tune', 'batch', " in unknown.json()["error"]["message"]
        listed = http.get(f"{installation}/files?limit=0").json()["error"]
        assert listed["message"] == "limit: give a whole number from 1 to 10000, not '0'"
