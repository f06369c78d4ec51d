"""An engine as the service starts it, and clients that keep it busy: the ground of the hosted benchmarks."""

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.light_client import LightClient
from manyicl_core.base_models.catalog import base_model_folder, known_base_models
from manyicl_core.child_process import engine_environment, spawn, stop
from manyicl_core.embedded import free_port

QUERY_TOKENS = 30
ANSWER_TOKENS = 5

_START_SECONDS = 300.0
# The special tokens of a vocabulary are its first ones.
_FIRST_TOKEN = 100


@contextmanager
def running_engine(folder: Path, module: str = "manyicl_core.inference", **settings: str) -> Iterator[str]:
    """The URL of an engine process of its own, on a free port, with a fresh store in ``folder``.

    Args:
        folder: for its store and its log.
        module: what starts it.
        settings: further settings, such as ``prefix_cache_bytes``.
    """
    port = free_port()
    own = {
        "engine_port": str(port),
        "storage_url": (folder / "artifacts").as_uri(),
        "prefix_folder": str(folder / "prefixes"),
        "work_folder": str(folder),
    }
    variables = {f"MANYICL_{name.upper()}": value for name, value in {**own, **settings}.items()}
    log = folder / "engine.log"
    with log.open("w", encoding="utf-8") as output:
        command = [sys.executable, "-m", module]
        process = spawn(command, engine_environment(dict(os.environ) | variables), output, output)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _healthy(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the engine did not start:\n{log.read_text(encoding='utf-8')[-4000:]}")
            time.sleep(0.2)
        yield url
    finally:
        stop(process, 5)


def model_folder() -> Path:
    """Where the base model of the settings lies; get it with ``manyicl models pull``."""
    entry = known_base_models()[0]
    return base_model_folder(entry)


def random_tokens(random_: random.Random, count: int) -> list[int]:
    """A text of ``count`` tokens that no cache has seen."""
    vocabulary = _vocabulary()
    return [random_.randrange(_FIRST_TOKEN, vocabulary) for _ in range(count)]


@lru_cache(maxsize=1)
def _vocabulary() -> int:
    config = json.loads((model_folder() / "config.json").read_text(encoding="utf-8"))
    return int(config["vocab_size"])


@dataclass(frozen=True, slots=True)
class Context:
    """Tokens that many queries share, for one model."""

    model: str
    tokens: list[int]

    def query(self, random_: random.Random, stream: bool = False) -> bytes:
        """The body of a new query behind it, with an answer of forced length."""
        return self._body(random_tokens(random_, QUERY_TOKENS), len(self.tokens), ANSWER_TOKENS, stream)

    def without_reuse(self, random_: random.Random) -> bytes:
        """The body of a new query whose prompt is as long, and kept by nobody."""
        return self._body(random_tokens(random_, QUERY_TOKENS), 0, ANSWER_TOKENS)

    def compilation(self) -> bytes:
        """The body that compiles it ahead of time."""
        return self._body([_FIRST_TOKEN], len(self.tokens), 1)

    def _body(self, query: list[int], prefix_tokens: int, answer_tokens: int, stream: bool = False) -> bytes:
        body = {
            "model": self.model,
            "prompt": self.tokens + query,
            "prefix_tokens": prefix_tokens,
            "max_tokens": answer_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": stream,
        }
        return json.dumps(body).encode()


@dataclass(frozen=True, slots=True)
class Call:
    """How one request went; all times in seconds, ``sent`` and ``done`` on one clock."""

    sent: float
    done: float
    status: int
    answer: dict[str, Any]

    @property
    def seconds(self) -> float:
        """From the request to the whole response."""
        return self.done - self.sent

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were compiled before."""
        return int(self.answer["usage"]["prompt_tokens_details"]["cached_tokens"])


def closed_loop(url: str, clients: Sequence[Sequence[bytes]]) -> list[Call]:
    """Each client sends its bodies one after the other; all must be answered in full."""
    calls = asyncio.run(_closed_loop(url, clients))
    for call in calls:
        assert call.status == httpx2.codes.OK, call.answer
        assert call.answer["usage"]["completion_tokens"] in (1, ANSWER_TOKENS), call.answer
    return calls


def rate(calls: Sequence[Call]) -> float:
    """Answers a second, from the first request to the last response."""
    return len(calls) / (max(call.done for call in calls) - min(call.sent for call in calls))


async def post(http: LightClient, body: bytes) -> Call:
    """Send one completion and wait for all of it."""
    reply = await http.post("/v1/completions", body)
    return Call(reply.sent, reply.done, reply.status, json.loads(reply.body or b"{}"))


def metrics(url: str) -> dict[str, float]:
    """The engine's Prometheus figures; one with labels has their values behind its name."""
    response = httpx2.get(f"{url}/metrics", timeout=30).raise_for_status()
    samples = [sample for family in text_string_to_metric_families(response.text) for sample in family.samples]
    return {"/".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}


async def _closed_loop(url: str, clients: Sequence[Sequence[bytes]]) -> list[Call]:
    http = LightClient(url)

    async def client(bodies: Sequence[bytes]) -> list[Call]:
        return [await post(http, body) for body in bodies]

    calls = await asyncio.gather(*map(client, clients))
    http.close()
    return [call for made in calls for call in made]


def _healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=2).is_success
    except httpx2.HTTPError:
        return False
