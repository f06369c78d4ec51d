"""A vLLM server's terms: adapters under content-addressed names, label scores, answers that are labels."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from manyicl_core.engines.client import EngineClient
from manyicl_core.engines.vllm_adapters import AdapterFolder
from manyicl_core.errors import InvalidRequest, NotFound, Overloaded, Unavailable
from manyicl_core.objects import ArtifactStore, open_store, put_weights
from tests.fake_engine import FakeEngine, completion, refusal, running

Result = TypeVar("Result")

BODY = {"model": "a/base", "prompt": [1, 2, 3], "prefix_tokens": 2, "cache_salt": "s", "priority": 1, "seed": None}
PATH = "/v1/completions"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store((tmp_path / "artifacts").as_uri())


@pytest.fixture
def folder(tmp_path: Path, store: ArtifactStore) -> AdapterFolder:
    return AdapterFolder(tmp_path / "adapters", store)


def stored(store: ArtifactStore, scratch: Path, name: str = "adapter_model.safetensors") -> str:
    scratch.mkdir(parents=True)
    (scratch / name).write_bytes(str(scratch).encode())
    (scratch / "adapter_config.json").write_text("{}", encoding="utf-8")
    return put_weights(store, scratch)


def asking(
    engine: FakeEngine, ask: Callable[[EngineClient], Awaitable[Result]], folder: AdapterFolder | None = None
) -> Result:
    async def run(url: str) -> Result:
        client = EngineClient(url, folder)
        try:
            return await ask(client)
        finally:
            await client.close()

    with running(engine) as url:
        return asyncio.run(run(url))


def test_the_base_model_is_asked_under_the_servers_name_without_our_own_fields():
    engine = FakeEngine("vllm", base="served/name")
    asking(engine, lambda client: client.complete(PATH, BODY))
    assert engine.bodies() == [{"model": "served/name", "prompt": [1, 2, 3], "cache_salt": "s", "priority": 1}]


def test_an_adapter_is_registered_once_from_a_folder_named_by_its_hash(
    store: ArtifactStore, folder: AdapterFolder, tmp_path: Path
):
    sha256 = stored(store, tmp_path / "made")
    engine = FakeEngine("vllm")

    async def ask(client: EngineClient) -> None:
        await asyncio.gather(*(client.complete(PATH, {**BODY, "model": sha256}) for _ in range(4)))

    asking(engine, ask, folder)
    assert engine.bodies("/v1/load_lora_adapter") == [
        {"lora_name": f"manyicl-{sha256}", "lora_path": str(tmp_path / "adapters" / sha256)}
    ]
    assert {body["model"] for body in engine.bodies()} == {f"manyicl-{sha256}"}
    assert {path.name for path in (tmp_path / "adapters").iterdir()} == {sha256}
    assert (tmp_path / "adapters" / sha256 / "adapter_config.json").is_file()


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_restarted_gets_its_adapters_again(
    store: ArtifactStore, folder: AdapterFolder, tmp_path: Path, stream: bool
):
    body = {**BODY, "model": stored(store, tmp_path / "made")}
    engine = FakeEngine("vllm")

    async def ask(client: EngineClient) -> None:
        await client.complete(PATH, body)
        engine.registered.clear()
        if stream:
            assert [chunk async for chunk in client.stream(PATH, body)]
        else:
            assert (await client.complete(PATH, body))["choices"]

    asking(engine, ask, folder)
    assert len(engine.bodies("/v1/load_lora_adapter")) == 2


def test_what_another_api_process_registered_is_used(store: ArtifactStore, folder: AdapterFolder, tmp_path: Path):
    sha256 = stored(store, tmp_path / "made")
    engine = FakeEngine("vllm", registered={f"manyicl-{sha256}": "somewhere"})
    assert asking(engine, lambda client: client.complete(PATH, {**BODY, "model": sha256}), folder)["choices"]


def test_deleted_weights_are_unregistered_and_their_folder_goes(
    store: ArtifactStore, folder: AdapterFolder, tmp_path: Path
):
    sha256 = stored(store, tmp_path / "made")
    engine = FakeEngine("vllm")

    async def ask(client: EngineClient) -> None:
        await client.complete(PATH, {**BODY, "model": sha256})
        await client.remove({sha256, "0" * 64})

    asking(engine, ask, folder)
    assert engine.registered == {}
    assert list((tmp_path / "adapters").iterdir()) == []


def test_what_cannot_be_registered_is_refused_with_the_remedy(
    store: ArtifactStore, folder: AdapterFolder, tmp_path: Path
):
    whole = stored(store, tmp_path / "whole", "model.safetensors")
    for sha256, folder_, kind, message in (
        (whole, folder, InvalidRequest, "adapters only"),
        ("1" * 64, folder, NotFound, "stored weights"),
        (whole, None, Unavailable, "MANYICL_ADAPTER_FOLDER"),
    ):
        engine = FakeEngine("vllm")
        body = {**BODY, "model": sha256}
        with pytest.raises(kind, match=message) as refused:
            asking(engine, lambda client, body=body: client.complete(PATH, body), folder_)  # type: ignore[misc]
        assert refused.value.retry_after_ms is None
        assert engine.bodies() == []


def test_a_whole_model_is_answered_by_an_engine_of_the_pool_that_serves_it(
    store: ArtifactStore, folder: AdapterFolder, tmp_path: Path
):
    whole = stored(store, tmp_path / "whole", "model.safetensors")
    own, vllm = FakeEngine(answers=[completion("own")]), FakeEngine("vllm")

    async def ask(client: EngineClient) -> list[str]:
        bodies = [{**BODY, "model": whole, "prompt": [number, number, 3]} for number in range(8)]
        answers = [await client.complete(PATH, body) for body in bodies]
        answers += [chunk for body in bodies async for chunk in client.stream(PATH, body) if chunk["choices"]]
        return [answer["choices"][0]["text"] for answer in answers]

    async def run(urls: str) -> list[str]:
        client = EngineClient(urls, folder)
        try:
            return await ask(client)
        finally:
            await client.close()

    with running(own) as a, running(vllm) as b:
        assert asyncio.run(run(f"{a},{b}")) == ["own"] * 16
    assert not vllm.bodies()
    assert not (tmp_path / "adapters").exists(), "it was not fetched either"


def test_where_one_engine_cannot_and_another_is_full_there_is_hope(
    store: ArtifactStore, folder: AdapterFolder, tmp_path: Path
):
    whole = stored(store, tmp_path / "whole", "model.safetensors")

    async def run(urls: str) -> None:
        client = EngineClient(urls, folder)
        try:
            for number in range(8):
                with pytest.raises(Overloaded):
                    await client.complete(PATH, {**BODY, "model": whole, "prompt": [number, number, 3]})
        finally:
            await client.close()

    with running(FakeEngine(answers=[refusal(429, "full", None)])) as a, running(FakeEngine("vllm")) as b:
        asyncio.run(run(f"{a},{b}"))


def test_a_label_ends_with_the_line_break_that_ends_an_answer():
    engine = FakeEngine("vllm")
    body = {**BODY, "structured_outputs": {"choice": [" a.b", " a"]}, "stop": [], "stop_token_ids": [9]}
    asking(engine, lambda client: client.complete(PATH, body))
    [asked] = engine.bodies()
    assert asked["structured_outputs"] == {"choice": [" a.b\n", " a\n"]}
    assert asked["stop"] == ["\n"]
    assert "stop_token_ids" not in asked  # 0.32 forbids a stop token inside a choice, and the request fails


def test_the_line_break_that_ends_a_matched_answer_is_a_stop_text():
    engine = FakeEngine("vllm")
    body = {**BODY, "structured_outputs": {"regex": " (?:a)\n"}, "stop": ["\n"], "stop_token_ids": [9]}
    asking(engine, lambda client: client.complete(PATH, body))
    [asked] = engine.bodies()
    assert (asked["structured_outputs"], asked["stop"]) == ({"regex": " (?:a)\n"}, ["\n"])
    assert "stop_token_ids" not in asked


def test_one_greedy_answer_is_told_n_times():
    engine = FakeEngine("vllm", answers=[completion("yes")])
    body = {**BODY, "temperature": 0.0, "n": 3}

    async def ask(client: EngineClient) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        return await client.complete(PATH, body), [chunk async for chunk in client.stream(PATH, body)]

    whole, chunks = asking(engine, ask)
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    assert [choice["index"] for choice in chunks[0]["choices"]] == [0, 1, 2]
    whole_body, stream_body = engine.bodies()
    assert (whole_body["n"], stream_body["n"]) == (1, 1)
    assert stream_body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_labels_are_scored_by_one_token_at_each_node():
    labels, prompts = [[5, 9], [7, 9]], [[1, 2], [1, 3]]
    logprobs = {"token_id:5": -1.0, "token_id:7": -2.0, "token_id:9": -0.5}
    nodes = [{"index": index, "logprobs": {"top_logprobs": [logprobs]}} for index in range(6)]
    engine = FakeEngine("vllm", answers=[{"choices": nodes}])
    body = {"model": "a/base", "prompts": prompts, "prefix_tokens": 1, "labels": labels, "cache_salt": "s"}
    answer = asking(engine, lambda client: client.complete("/v1/label_scores", body))
    assert answer["scores"] == [[pytest.approx(-1.5), pytest.approx(-2.5)]] * 2
    assert answer["usage"]["prompt_tokens"] == 4
    [asked] = engine.bodies()
    assert (asked["cache_salt"], asked["max_tokens"], len(asked["prompt"])) == ("s", 1, 6)
    assert math.isclose(sum(map(math.exp, answer["scores"][0])), math.exp(-1.5) + math.exp(-2.5))


def test_the_cached_tokens_of_the_last_prompt_are_not_told_as_those_of_all():
    answer = completion("x")
    answer["usage"] = {**answer["usage"], "prompt_tokens_details": {"cached_tokens": 2}}
    engine = FakeEngine("vllm", answers=[answer])

    async def ask(client: EngineClient) -> list[Any]:
        asked = [await client.complete(PATH, {**BODY, "prompt": prompt}) for prompt in ([1, 2], [[1, 2], [3]])]
        return [told["usage"]["prompt_tokens_details"] for told in asked]

    assert asking(engine, ask) == [{"cached_tokens": 2}, None]


def test_only_bulk_has_a_priority_and_a_server_that_refuses_it_gets_none_from_then_on():
    refused = refusal(400, "Got priority 1 but Priority scheduling is not enabled.", 400)
    engine = FakeEngine("vllm", answers=[completion("x"), refused, completion("x")])

    async def ask(client: EngineClient) -> None:
        await client.complete(PATH, {**BODY, "priority": 0})
        await client.complete(PATH, BODY)
        await client.complete(PATH, BODY)

    asking(engine, ask)
    assert [body.get("priority") for body in engine.bodies()] == [None, 1, None, None]


def test_a_refusal_that_another_field_earns_does_not_end_priorities():
    refused = refusal(400, "the schema's 'priority' has no type", 400)
    engine = FakeEngine("vllm", answers=[refused, refused, completion("x")])

    async def ask(client: EngineClient) -> None:
        with pytest.raises(InvalidRequest, match="no type"):
            await client.complete(PATH, BODY)
        await client.complete(PATH, BODY)

    asking(engine, ask)
    assert [body.get("priority") for body in engine.bodies()] == [1, None, 1]
