"""The engine over HTTP, in vLLM's shape."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.inference.adapters import Adapters
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from manyicl_core.inference.requests import OutOfMemory
from manyicl_core.inference.server import create_app
from manyicl_core.inference.vocabulary import Vocabulary
from tests.tiny_model import MAX_POSITIONS
from tests.unit.inference.driving import Driven
from tests.unit.inference.greedy import plain_greedy

BASE = "somebody/tiny-llama"
PROMPT = list(range(40, 75))
COMPLETION: dict[str, Any] = {"model": BASE, "prompt": PROMPT, "max_tokens": 8, "ignore_eos": True}
SCORES: dict[str, Any] = {"model": BASE, "prompts": [PROMPT], "labels": [[5, 6], [7]]}


@pytest.fixture(scope="module")
def client(
    base_only: LanguageModel, vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    engine = Driven(base_only, vocabulary, tmp_path_factory.mktemp("engine")).engine
    with TestClient(create_app(engine, vocabulary, BASE)) as client_:
        yield client_


def ask(client: TestClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert isinstance(answer, dict)
    return answer


def events_of(client: TestClient, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    lines = [line for line in client.post(path, json={**body, "stream": True}).text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_it_says_that_it_is_well_what_it_serves_and_what_it_did(client: TestClient):
    assert client.get("/health").json() == {"status": "ok"}
    [model] = client.get("/v1/models").json()["data"]
    assert (model["id"], model["max_model_len"]) == (BASE, MAX_POSITIONS)
    ask(client, "/v1/completions", COMPLETION)
    assert re.search(r'manyicl_tokens_total\{kind="decoded"\} [1-9]', client.get("/metrics").text)


def test_a_completion_is_the_plain_models(client: TestClient, plain: PreTrainedModel, tokenizer: Tokenizer):
    stop = plain_greedy(plain, PROMPT, 8)[5]
    written = plain_greedy(plain, PROMPT, 8, {stop})
    answer = ask(client, "/v1/completions", {**COMPLETION, "stop_token_ids": [stop]})
    [choice] = answer["choices"]
    assert tokenizer.decode(written[:-1]).startswith(choice["text"])
    assert choice["finish_reason"] == "stop"
    assert choice["logprobs"] is None
    assert answer["usage"] == {
        "prompt_tokens": len(PROMPT),
        "completion_tokens": len(written),
        "total_tokens": len(PROMPT) + len(written),
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_a_context_is_kept_for_its_tenant(client: TestClient):
    def cached(salt: str) -> int:
        body = {**COMPLETION, "prefix_tokens": 30, "cache_salt": salt}
        tokens = ask(client, "/v1/completions", body)["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert isinstance(tokens, int)
        return tokens

    assert [cached("one"), cached("one"), cached("two"), cached("two")] == [0, 30, 0, 30]


@pytest.mark.parametrize("n", [1, 3])
def test_the_pieces_of_a_stream_join_to_the_whole_answer(client: TestClient, n: int):
    body = {**COMPLETION, "n": n, "temperature": 1.0, "seed": 3, "logprobs": 1}
    whole = ask(client, "/v1/completions", body)
    *pieces, last = events_of(client, "/v1/completions", body)
    for choice in whole["choices"]:
        own = [part for piece in pieces for part in piece["choices"] if part["index"] == choice["index"]]
        assert "".join(part["text"] for part in own) == choice["text"]
        assert [part["finish_reason"] for part in own] == [None] * (len(own) - 1) + ["length"]
        told = [entry for part in own for entry in part["logprobs"]["token_logprobs"]]
        assert len(told) == len(choice["logprobs"]["token_logprobs"]) == 8
    assert (last["choices"], last["usage"]) == ([], whole["usage"])


def test_several_prompts_are_answered_in_their_order(client: TestClient):
    prompts = [PROMPT[:length] for length in (3, 35, 10)]
    body = {**COMPLETION, "n": 2, "temperature": 1.0, "seed": 5}
    answer = ask(client, "/v1/completions", {**body, "prompt": prompts})
    alone = [ask(client, "/v1/completions", {**body, "prompt": prompt}) for prompt in prompts]
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    texts = [choice["text"] for choice in answer["choices"]]
    assert texts == [choice["text"] for one in alone for choice in one["choices"]]
    assert len(set(texts)) == 6
    assert answer["usage"]["total_tokens"] == sum(one["usage"]["total_tokens"] for one in alone)


def test_the_log_probabilities_of_a_completion_have_openais_shape_and_ours(client: TestClient, tokenizer: Tokenizer):
    [choice] = ask(client, "/v1/completions", {**COMPLETION, "logprobs": 2})["choices"]
    shown = choice["logprobs"]
    assert tokenizer.decode(shown["token_ids"]).startswith(choice["text"])
    for index, token in enumerate(shown["token_ids"]):
        assert shown["tokens"][index] == tokenizer.decode([token])
        best, second = shown["top"][index]
        assert (best["token_id"], best["logprob"]) == (token, shown["token_logprobs"][index])
        assert best["logprob"] >= second["logprob"]
        assert shown["top_logprobs"][index][best["token"]] == best["logprob"]
    written = bytes(byte for token in shown["bytes"] for byte in token)
    assert written.decode(errors="replace").startswith(choice["text"])
    assert shown["text_offset"][:2] == [0, len(shown["tokens"][0])]


def test_a_completion_ends_where_the_model_ends(client: TestClient, vocabulary: Vocabulary):
    body = {**COMPLETION, "logit_bias": {str(vocabulary.end): 100}}
    for ignored, written in ((True, 8), (False, 1)):
        answer = ask(client, "/v1/completions", {**body, "ignore_eos": ignored})
        assert answer["usage"]["completion_tokens"] == written
        assert answer["choices"][0]["text"] == ""
        assert answer["choices"][0]["finish_reason"] == ("length" if ignored else "stop")


@pytest.mark.parametrize("max_tokens", [0, 3])
def test_an_echo_tells_the_prompt_first(client: TestClient, tokenizer: Tokenizer, max_tokens: int):
    body = {**COMPLETION, "echo": True, "logprobs": 1, "max_tokens": max_tokens, "prompt": [PROMPT, PROMPT[:2]], "n": 2}
    answer = ask(client, "/v1/completions", body)
    for choice, prompt in zip(answer["choices"], [PROMPT, PROMPT, PROMPT[:2], PROMPT[:2]], strict=True):
        shown = choice["logprobs"]
        assert choice["text"].startswith(tokenizer.decode(prompt))
        assert shown["token_ids"][: len(prompt)] == prompt
        assert len(shown["token_ids"]) == len(shown["token_logprobs"]) == len(prompt) + max_tokens
        assert shown["token_logprobs"][0] is None and shown["top_logprobs"][0] is None
        assert all(value < 0 for value in shown["token_logprobs"][1:])
        assert choice["finish_reason"] == "length"


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
    [choice] = ask(client, "/v1/completions", body)["choices"]
    assert choice["text"].strip() in labels
    assert choice["finish_reason"] == "stop"


def test_an_answer_is_json_or_matches_a_pattern(client: TestClient):
    def text(outputs: dict[str, Any]) -> str:
        body = {**COMPLETION, "max_tokens": 200, "structured_outputs": outputs}
        [choice] = ask(client, "/v1/completions", body)["choices"]
        assert choice["finish_reason"] == "stop"
        return str(choice["text"])

    properties = {"mood": {"enum": ["glad", "sad"]}, "sure": {"type": "boolean"}}
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    found = json.loads(text({"json": schema}))
    assert found["mood"] in ("glad", "sad") and isinstance(found["sure"], bool) and len(found) == 2
    assert re.fullmatch("[0-9]{3}-[a-f]{2}", text({"regex": "[0-9]{3}-[a-f]{2}"}))


def test_a_bias_goes_by_token_ids(client: TestClient, tokenizer: Tokenizer):
    [token] = tokenizer.encode("e").ids
    body = {**COMPLETION, "logit_bias": {str(token): 100}}
    assert ask(client, "/v1/completions", body)["choices"][0]["text"] == "e" * 8


def test_labels_are_scored_in_the_order_of_prompts(client: TestClient):
    prompts = [PROMPT, PROMPT[:32], PROMPT]
    body = {**SCORES, "prompts": prompts, "prefix_tokens": 30}
    answer = ask(client, "/v1/label_scores", body)
    alone = [ask(client, "/v1/label_scores", {**body, "prompts": [prompt]})["scores"][0] for prompt in prompts]
    for scores, expected in zip(answer["scores"], alone, strict=True):
        assert scores == pytest.approx(expected, abs=1e-5)
    assert answer["usage"]["prompt_tokens"] == 2 * len(PROMPT) + 32


def test_a_thousand_labels_may_together_be_longer_than_the_model_reads(client: TestClient):
    labels = [[5 + number % 300, 6 + number // 300, 7, 4] for number in range(1000)]
    assert sum(map(len, labels)) > MAX_POSITIONS
    [scores] = ask(client, "/v1/label_scores", {**SCORES, "labels": labels})["scores"]
    assert len(scores) == 1000


def test_an_answer_ends_where_the_models_positions_do(client: TestClient):
    prompt = [5] * (MAX_POSITIONS - 3)
    answer = ask(client, "/v1/completions", {**COMPLETION, "prompt": prompt, "max_tokens": 100})
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"prompt": [5] * MAX_POSITIONS}, 400, "context_length_exceeded"),
        ({"prompt": [5, 10**6]}, 400, "invalid_value"),
        ({"logit_bias": {"1000000": 1}}, 400, "invalid_value"),
        ({"max_tokens": 0}, 400, "invalid_value"),
        ({"model": "0" * 64}, 404, "model_not_found"),
        ({"structured_outputs": {"choice": ["a"]}}, 400, "missing_stop"),
        ({"structured_outputs": {"regex": "("}}, 400, "invalid_grammar"),
        ({"structured_outputs": {"json": {"type": "nothing"}}}, 400, "invalid_grammar"),
        ({"deadline_seconds": 1e-9}, 504, "deadline_exceeded"),
    ],
)
def test_a_refusal_has_its_status_and_code(
    client: TestClient, stream: bool, changes: dict[str, Any], status: int, code: str
):
    response = client.post("/v1/completions", json={**COMPLETION, **changes, "stream": stream})
    assert response.status_code == status
    assert response.json()["error"]["code"] == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"prompts": [[5] * MAX_POSITIONS]}, "context_length_exceeded"),
        ({"prompts": [PROMPT, [10**6]]}, "invalid_value"),
        ({"labels": [[5], [5, 10**6]]}, "invalid_value"),
        ({"labels": [[5] * 257]}, "label_too_long"),
    ],
)
def test_scores_that_cannot_be_told_are_refused(client: TestClient, changes: dict[str, Any], code: str):
    response = client.post("/v1/label_scores", json={**SCORES, **changes})
    assert (response.status_code, response.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": []},
        {"prompt": [[5], []]},
        {"max_tokens": -1},
        {"top_p": 0},
        {"temperature": -1},
        {"temperature": 2.1},
        {"n": 0},
        {"n": 129},
        {"logprobs": 21},
        {"logit_bias": {"-1": 5}},
        {"logit_bias": {"5": 101}},
        {"presence_penalty": 3},
        {"cache_salt": "x" * 129},
        {"deadline_seconds": 0},
        {"structured_outputs": {}},
        {"structured_outputs": {"regex": "a", "json_object": True}},
    ],
)
def test_a_wrong_field_is_refused(client: TestClient, changes: dict[str, Any]):
    assert client.post("/v1/completions", json={**COMPLETION, **changes}).status_code == 422


def test_a_model_without_room_is_refused_for_the_moment(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> TunedModel:
        raise OutOfMemory("this model takes more memory than there is")

    monkeypatch.setattr(Adapters, "get", refuse)
    for body in (COMPLETION, COMPLETION | {"stream": True}):
        response = client.post("/v1/completions", json=body)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "out_of_memory")
        assert "more memory" in response.json()["error"]["message"]
