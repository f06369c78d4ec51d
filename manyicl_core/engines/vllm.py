"""A vLLM server in place of our engine: our bodies in its terms (docs/decisions/0011)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from manyicl_core.engines.connection import Connection, UnknownModel
from manyicl_core.engines.server import is_bulk
from manyicl_core.engines.vllm_adapters import Registrations, is_weights_hash
from manyicl_core.engines.vllm_labels import edge_scores, label_score, pack_request, packs
from manyicl_core.errors import InvalidRequest
from manyicl_core.method.encoding import STOP

# It finds shared prefixes by itself and has no deadlines; bulk says its priority when it is sent, as 0 is the default.
_NOT_VLLMS = {"prefix_tokens", "deadline_seconds", "priority"}
_SCORED_ROWS = 256
_BULK = 1


class VllmServer:
    """One vLLM server; ``base_model`` is the name under which it serves the base model."""

    def __init__(self, connection: Connection, base_model: str, registrations: Registrations) -> None:
        self._connection = connection
        self._base_model = base_model
        self._registrations = registrations
        self._takes_priorities = True

    async def complete(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One whole answer."""
        if path == "/v1/label_scores":
            return await self._label_scores(body)
        answer = await self._post(path, body["model"], _translated(body), is_bulk(body))
        answer["choices"] = [copy for choice in answer["choices"] for copy in _copies(choice, body)]
        prompt = body.get("prompt")
        if prompt and isinstance(prompt[0], list):
            # Of several prompts it tells the cached tokens of the last one only, as if they were those of all.
            answer["usage"]["prompt_tokens_details"] = None
        return answer

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a streamed answer."""
        # With every chunk, as our engine does: a stream may be left early.
        usage = {"include_usage": True, "continuous_usage_stats": True}
        request = {**_translated(body), "stream_options": usage}
        for last_try in (False, True):
            name = await self._name(body["model"])
            try:
                async with aclosing(self._connection.stream(path, {**request, "model": name})) as chunks:
                    async for chunk in chunks:
                        chunk["choices"] = [copy for choice in chunk["choices"] for copy in _copies(choice, body)]
                        yield chunk
                return
            except UnknownModel:
                self._registrations.forget(body["model"])
                if last_try:
                    raise

    async def remove(self, sha256: str) -> None:
        """Unregister deleted weights."""
        await self._registrations.remove(sha256)

    async def forget(self, body: dict[str, Any]) -> None:
        """Nothing to do: a prefix that nobody asks for any more makes room for others."""

    async def _post(self, path: str, model: str, request: dict[str, Any], bulk: bool) -> dict[str, Any]:
        """Ask, and register the weights once more when the server has lost them, as by a restart."""
        try:
            answer = await self._ask(path, {**request, "model": await self._name(model)}, bulk)
        except UnknownModel:
            self._registrations.forget(model)
            answer = await self._ask(path, {**request, "model": await self._name(model)}, bulk)
        assert isinstance(answer, dict)
        return answer

    async def _ask(self, path: str, request: dict[str, Any], bulk: bool) -> Any:
        """Ask, bulk behind all that somebody waits for; a server that refuses priorities gets none from then on."""
        if bulk and self._takes_priorities:
            try:
                return await self._connection.post(path, {**request, "priority": _BULK}, bulk)
            except InvalidRequest as error:
                if "priority" not in error.message:
                    raise
        answer = await self._connection.post(path, request, bulk)
        if bulk:  # it was the priority that was refused: without one there is an answer
            self._takes_priorities = False
        return answer

    async def _name(self, model: str) -> str:
        """The server's name of a request's model: nothing that a client wrote is sent on."""
        return await self._registrations.name(model) if is_weights_hash(model) else self._base_model

    async def _label_scores(self, body: dict[str, Any]) -> dict[str, Any]:
        prompts, labels = body["prompts"], body["labels"]
        edges: list[dict[Any, float]] = [{} for _ in prompts]
        for pack in packs(labels):
            step = max(1, _SCORED_ROWS // len(pack.nodes))
            for start in range(0, len(prompts), step):
                request = {**pack_request(pack, prompts[start : start + step]), "cache_salt": body["cache_salt"]}
                answer = await self._post("/v1/completions", body["model"], request, is_bulk(body))
                for index, scores in enumerate(edge_scores(pack, answer["choices"]), start):
                    edges[index] |= scores
        # Its cached tokens are of the last node only, behind what the nodes before it have cached: none are told.
        tokens = sum(map(len, prompts))
        return {
            "scores": [[label_score(label, of_prompt) for label in labels] for of_prompt in edges],
            "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
        }


def _translated(body: dict[str, Any]) -> dict[str, Any]:
    request = {name: value for name, value in body.items() if name not in _NOT_VLLMS and value is not None}
    outputs = body.get("structured_outputs") or {}
    if "choice" in outputs:
        # The line break belongs to the choice, as in training: otherwise only the end of the text may follow, and of
        # two labels one of which starts with the other the shorter one would never be given.
        request |= {"structured_outputs": {"choice": [text + STOP for text in outputs["choice"]]}, "stop": [STOP]}
    if "choice" in outputs or "regex" in outputs:
        # The line break that ends them is a stop text: as a stop token it would be forbidden in them, and the request
        # would fail.
        request.pop("stop_token_ids", None)
    if _greedy_copies(body) > 1:
        request["n"] = 1
    return request


def _greedy_copies(body: dict[str, Any]) -> int:
    """How often the one greedy answer is told: vLLM refuses to be asked for several."""
    return body.get("n") or 1 if body.get("temperature") == 0 else 1


def _copies(choice: dict[str, Any], body: dict[str, Any]) -> list[dict[str, Any]]:
    copies = _greedy_copies(body)
    return [{**choice, "index": choice["index"] * copies + copy} for copy in range(copies)]
