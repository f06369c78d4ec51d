"""The engine over HTTP, in vLLM's shape."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedModel

from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.inference.adapters import Adapters, DoesNotFit
from manyicl_core.inference.engine import Engine
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix_store import PrefixStore
from manyicl_core.inference.server import create_app
from manyicl_core.objects import open_store
from tests.tiny_model import MAX_POSITIONS
from tests.unit.inference.greedy import plain_greedy

BASE = "somebody/tiny-llama"
PROMPT = list(range(40, 75))
COMPLETION: dict[str, Any] = {"model": BASE, "prompt": PROMPT, "max_tokens": 8}
CHAT: dict[str, Any] = {"model": BASE, "messages": [{"role": "user", "content": "a parcel"}], "max_tokens": 8}


@pytest.fixture(scope="module")
def client(
    base_only: LanguageModel, tokenizer: Tokenizer, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("engine")
    adapters = Adapters(base_only, open_store(f"file://{folder}/store"), folder, 1)
    engine = Engine(base_only, tokenizer, adapters, PrefixStore(1 << 20))
    with TestClient(create_app(engine, AutoTokenizer.from_pretrained(tiny_model), BASE)) as client_:
        yield client_


def events_of(client: TestClient, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    lines = [line for line in client.post(path, json={**body, "stream": True}).text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_it_says_that_it_is_well_and_what_it_serves(client: TestClient):
    assert client.get("/health").json() == {"status": "ok"}
    [model] = client.get("/v1/models").json()["data"]
    assert (model["id"], model["max_model_len"]) == (BASE, MAX_POSITIONS)


def test_a_completion_is_the_plain_models(client: TestClient, plain: PreTrainedModel, tokenizer: Tokenizer):
    stop = plain_greedy(plain, PROMPT, 8)[5]
    written = plain_greedy(plain, PROMPT, 8, {stop})
    answer = client.post("/v1/completions", json={**COMPLETION, "stop_token_ids": [stop]}).json()
    [choice] = answer["choices"]
    assert tokenizer.decode(written[:-1]).startswith(choice["text"])
    assert choice["finish_reason"] == "stop"
    assert answer["usage"] == {
        "prompt_tokens": len(PROMPT),
        "completion_tokens": len(written),
        "total_tokens": len(PROMPT) + len(written),
        "prompt_tokens_details": {"cached_tokens": 0},
    }


@pytest.mark.parametrize(("path", "body"), [("/v1/completions", COMPLETION), ("/v1/chat/completions", CHAT)])
def test_the_pieces_of_a_stream_join_to_the_whole_answer(client: TestClient, path: str, body: dict[str, Any]):
    whole = client.post(path, json=body).json()
    *pieces, last = events_of(client, path, body)
    chat = path.startswith("/v1/chat")
    texts = [piece["choices"][0]["delta"]["content"] if chat else piece["choices"][0]["text"] for piece in pieces]
    [choice] = whole["choices"]
    assert "".join(texts) == (choice["message"]["content"] if chat else choice["text"])
    assert [piece["choices"][0]["finish_reason"] for piece in pieces] == [None] * (len(pieces) - 1) + ["length"]
    assert (last["choices"], last["usage"]) == ([], whole["usage"])


def test_a_chat_is_put_into_the_models_own_template(client: TestClient, tokenizer: Tokenizer):
    rendered = tokenizer.encode("<|im_start|>user\na parcel<|im_end|>\n<|im_start|>assistant\n").ids
    assert client.post("/v1/chat/completions", json=CHAT).json()["usage"]["prompt_tokens"] == len(rendered)


@pytest.mark.parametrize("labels", [["complaint", "praise"], ["<|im_end|>", "<|endoftext|>"]])
def test_a_choice_is_answered_whole_even_if_it_looks_like_a_special_token(
    client: TestClient, tiny_model: Path, labels: list[str]
):
    body = {
        **COMPLETION,
        "max_tokens": 100,
        "stop_token_ids": [load_encoder(tiny_model).stop],
        "structured_outputs": {"choice": [f" {label}" for label in labels]},
    }
    [choice] = client.post("/v1/completions", json=body).json()["choices"]
    assert choice["text"].strip() in labels
    assert choice["finish_reason"] == "stop"


def test_an_answer_ends_where_the_models_positions_do(client: TestClient):
    prompt = [5] * (MAX_POSITIONS - 3)
    answer = client.post("/v1/completions", json={**COMPLETION, "prompt": prompt, "max_tokens": 100}).json()
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"prompt": [5] * MAX_POSITIONS}, 400, "context_length_exceeded"),
        ({"model": "0" * 64}, 404, "model_not_found"),
        ({"structured_outputs": {"choice": ["a"]}}, 400, "missing_stop"),
    ],
)
def test_a_refusal_has_its_status_and_code(
    client: TestClient, stream: bool, changes: dict[str, Any], status: int, code: str
):
    response = client.post("/v1/completions", json={**COMPLETION, **changes, "stream": stream})
    assert response.status_code == status
    assert response.json()["error"]["code"] == code


@pytest.mark.parametrize("changes", [{"prompt": []}, {"max_tokens": 0}, {"top_p": 0}, {"temperature": -1}])
def test_a_wrong_field_is_refused(client: TestClient, changes: dict[str, Any]):
    assert client.post("/v1/completions", json={**COMPLETION, **changes}).status_code == 422


def test_a_model_without_room_is_refused_for_the_moment(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    def refuse(_: Adapters, sha256: str | None) -> LanguageModel:
        raise DoesNotFit(2**30, 2**20)

    monkeypatch.setattr(Adapters, "activate", refuse)
    for body in (COMPLETION, COMPLETION | {"stream": True}):
        response = client.post("/v1/completions", json=body)
        assert response.status_code == 503
        assert "1024 MiB of memory beside the base model and 1 MiB are free" in response.json()["error"]["message"]
