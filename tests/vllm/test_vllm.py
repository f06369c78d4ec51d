"""A real vLLM server in place of our engine: the same tokens, probabilities and labels as the plain model's."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from manyicl_core.answers.logprobs import chat_logprobs
from manyicl_core.base_models.load import load_base_model
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.child_process import spawn, stop
from manyicl_core.embedded import free_port
from manyicl_core.engines.client import EngineClient
from manyicl_core.engines.vllm_adapters import AdapterFolder
from manyicl_core.method.encoding import ANSWER_TEMPLATE, Encoder
from manyicl_core.method.labels import LabelTree
from manyicl_core.objects import ArtifactStore, open_store, put_weights
from tests.services import wait_for
from tests.tiny_model import make_tiny_model
from tests.unit.inference.greedy import plain_greedy
from tests.unit.random_adapter import save_random_adapter

PYTHON = os.environ.get("MANYICL_TEST_VLLM_PYTHON")
pytestmark = pytest.mark.skipif(
    PYTHON is None, reason="MANYICL_TEST_VLLM_PYTHON is not set; name the Python of an environment with vLLM"
)

Result = TypeVar("Result")

SERVED = "tests/served-by-vllm"
END = 2  # the tiny model's end-of-text id
CONTEXT = [3 + n * 7 % 300 for n in range(300)]
LABELS = ["praise", "praise with a but", "complaint", "ques.tion (a)"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vLLM's attention on a CPU knows no heads as small as the other tests'."""
    return make_tiny_model(tmp_path_factory.mktemp("vllm-model"), hidden_size=256)


@pytest.fixture(scope="module")
def server(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    assert PYTHON is not None
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "server.log"
    command = [PYTHON, "-m", "vllm.entrypoints.cli.main", "serve", str(model_folder)]
    command += ["--served-model-name", SERVED, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--enable-lora", "--max-lora-rank", "16", "--enable-prompt-tokens-details", "--enforce-eager"]
    command += ["--scheduling-policy", "priority"]
    # By a request it is not heard, and where any white space may stand small models write nothing else.
    command += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    settings = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    # What our own environment puts on the path is not the other's.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("w", encoding="utf-8") as file:
        process = spawn(command, {**environment, **settings}, file, file)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(lambda: process.poll() is not None or answers(url), "vLLM")
            assert process.poll() is None, log.read_text(encoding="utf-8")[-5000:]
            yield url
        finally:
            stop(process, 20)


def answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health").is_success
    except httpx2.HTTPError:
        return False


@pytest.fixture(scope="module")
def plain(model_folder: Path) -> PreTrainedModel:
    return load_base_model(model_folder, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def encoder(model_folder: Path) -> Encoder:
    return load_encoder(model_folder)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store((tmp_path / "artifacts").as_uri())


def asking(url: str, ask: Callable[[EngineClient], Awaitable[Result]], folder: AdapterFolder | None = None) -> Result:
    async def run() -> Result:
        client = EngineClient(url, folder)
        try:
            return await ask(client)
        finally:
            await client.close()

    return asyncio.run(run())


def completion(prompt: Sequence[int], model: str = SERVED, **fields: Any) -> dict[str, Any]:
    body = {
        "model": model,
        "prompt": list(prompt),
        "prefix_tokens": len(CONTEXT),
        "cache_salt": "a",
        "temperature": 0.0,
    }
    return {**body, "max_tokens": 8, "priority": 0, **fields}


def text_of(model_folder: Path, tokens: Sequence[int]) -> str:
    text: str = Tokenizer.from_file(str(model_folder / "tokenizer.json")).decode(list(tokens))
    return text.rstrip("\ufffd")  # half a character at the end is told as the server likes


def test_greedy_answers_are_the_plain_models_whole_and_streamed(
    server: str, model_folder: Path, plain: PreTrainedModel
):
    prompts = [[*CONTEXT, *range(40 + n, 60 + n)] for n in range(3)]

    async def ask(client: EngineClient) -> list[tuple[str, str]]:
        texts = []
        for prompt in prompts:
            whole = await client.complete("/v1/completions", completion(prompt, n=2))
            chunks = [chunk async for chunk in client.stream("/v1/completions", completion(prompt))]
            streamed = "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
            assert whole["choices"][0]["text"] == whole["choices"][1]["text"]
            assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
            texts.append((whole["choices"][0]["text"], streamed))
        return texts

    for prompt, (whole, streamed) in zip(prompts, asking(server, ask), strict=True):
        assert whole == streamed
        assert whole.rstrip("\ufffd") == text_of(model_folder, plain_greedy(plain, prompt, 8, {END}))


def test_a_context_is_computed_once_for_each_salt(server: str):
    async def cached(client: EngineClient, query: int, salt: str) -> int:
        body = completion([*CONTEXT, query, query], cache_salt=salt, priority=1)
        answer = await client.complete("/v1/completions", body)
        return int((answer["usage"].get("prompt_tokens_details") or {}).get("cached_tokens") or 0)

    async def ask(client: EngineClient) -> list[int]:
        return [await cached(client, *query) for query in ((50, "s1"), (51, "s1"), (52, "s2"))]

    first, second, other = asking(server, ask)
    assert (first, other) == (0, 0)
    assert second >= 256


def test_an_answer_is_a_whole_label_also_one_that_another_starts_with(
    server: str, plain: PreTrainedModel, encoder: Encoder
):
    choices = [ANSWER_TEMPLATE.format(output=label) for label in LABELS]
    fields = {"structured_outputs": {"choice": choices}, "stop_token_ids": [encoder.stop], "stop": [], "max_tokens": 40}
    tree = LabelTree([encoder.answer(label) for label in LABELS])
    prompts = [[*CONTEXT, *encoder.query(f"parcel {n}")] for n in range(6)]
    # Where "praise" may end or go on, these decide.
    pair = {**fields, "structured_outputs": {"choice": choices[:2]}}
    short = completion(prompts[0], logit_bias={str(encoder.stop): 100}, **pair)
    long = completion(prompts[0], logit_bias={str(encoder.answer(LABELS[1])[2]): 100}, **pair)

    async def ask(client: EngineClient) -> list[str]:
        bodies = [completion(prompt, **fields) for prompt in prompts]
        asked = [client.complete("/v1/completions", body) for body in [short, long, *bodies]]
        return [answer["choices"][0]["text"] for answer in await asyncio.gather(*asked)]

    ended, gone_on, *texts = asking(server, ask)
    assert [ended, gone_on] == choices[:2]
    # Its grammar allows other tokens of the same text too, so not every greedy path is our tree's.
    greedy = [plain_greedy(plain, prompt, 40, {encoder.stop}, tree) for prompt in prompts]
    expected = [choices[[encoder.answer(label) for label in LABELS].index(tokens)] for tokens in greedy]
    assert set(texts) <= set(choices)
    assert sum(map(str.__eq__, texts, expected)) >= len(prompts) // 2


def test_an_answer_keeps_to_a_json_schema_and_tells_its_tokens_probabilities(server: str, encoder: Encoder):
    schema = {"type": "object", "properties": {"kind": {"enum": ["praise", "complaint"]}}, "required": ["kind"]}
    fields = {
        "structured_outputs": {"json": {**schema, "additionalProperties": False}},
        "logprobs": 2,
        "max_tokens": 60,
    }
    body = completion(encoder.query("parcel"), stop_token_ids=[encoder.stop], **fields)
    [choice] = asking(server, lambda client: client.complete("/v1/completions", body))["choices"]
    assert json.loads(choice["text"])["kind"] in ("praise", "complaint")
    told = chat_logprobs(choice["logprobs"], 2)
    assert told is not None
    assert len(told["content"]) >= len(choice["text"]) // 8
    for token in told["content"]:
        assert len(token["top_logprobs"]) == 2
        assert token["top_logprobs"][0]["logprob"] >= token["top_logprobs"][1]["logprob"]


def test_label_scores_are_the_plain_models(server: str, plain: PreTrainedModel, encoder: Encoder):
    labels = [encoder.answer(label) for label in LABELS]
    prompts = [[*CONTEXT, *encoder.query(f"parcel {n}")] for n in range(3)]
    body = {"model": SERVED, "prompts": prompts, "prefix_tokens": len(CONTEXT), "labels": labels, "cache_salt": "l"}
    answer = asking(server, lambda client: client.complete("/v1/label_scores", body))
    for prompt, scores in zip(prompts, answer["scores"], strict=True):
        assert scores == pytest.approx([plain_score(plain, prompt, label) for label in labels], abs=2e-3)


@torch.no_grad()
def plain_score(model: PreTrainedModel, prompt: Sequence[int], label: Sequence[int]) -> float:
    logprobs = model(input_ids=torch.tensor([[*prompt, *label]])).logits[0].log_softmax(-1)
    return sum(float(logprobs[len(prompt) - 1 + n, token]) for n, token in enumerate(label))


def test_adapters_are_registered_again_after_they_are_lost_and_go_when_deleted(
    server: str, model_folder: Path, store: ArtifactStore, tmp_path: Path
):
    folder = AdapterFolder(tmp_path / "adapters", store)
    made = {}
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        made[put_weights(store, save_random_adapter(model_folder, tmp_path / str(seed), seed))] = tmp_path / str(seed)
    prompt = [*CONTEXT, *range(40, 60)]

    async def ask(client: EngineClient) -> list[str]:
        texts = []
        for sha256 in [*made, *made]:
            answer = await client.complete("/v1/completions", completion(prompt, sha256))
            texts.append(answer["choices"][0]["text"].rstrip("\ufffd"))
            # As a restart: the server forgets, and we do not know.
            httpx2.post(f"{server}/v1/unload_lora_adapter", json={"lora_name": f"manyicl-{sha256}"}).raise_for_status()
        await client.complete("/v1/completions", completion(prompt, next(iter(made))))
        await client.remove(set(made))
        return texts

    expected = []
    for path in made.values():
        tuned = PeftModel.from_pretrained(load_base_model(model_folder, torch.device("cpu"), torch.float32), path)
        expected.append(text_of(model_folder, plain_greedy(tuned, prompt, 8, {END})))
    assert asking(server, ask, folder) == expected * 2
    assert len(set(expected)) == 2
    names = {entry["id"] for entry in httpx2.get(f"{server}/v1/models").json()["data"]}
    assert names == {SERVED}
    assert list((tmp_path / "adapters").iterdir()) == []
