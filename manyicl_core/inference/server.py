"""The engine over HTTP: completions of token ids, label scores, ``/v1/models``, ``/health``, ``/metrics``."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import lru_cache
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from manyicl_core.inference.answer import Sampling
from manyicl_core.inference.engine import Engine
from manyicl_core.inference.engine_thread import EngineThread
from manyicl_core.inference.guides import BadGrammar, compiled_grammar, json_grammar, regex_grammar
from manyicl_core.inference.prefix import PrefixKey
from manyicl_core.inference.replies import Choice, piece, take, whole
from manyicl_core.inference.requests import (
    Choices,
    Delta,
    Event,
    Generation,
    Grammar,
    LabelScores,
    LabelScoring,
    Overloaded,
    Refusal,
)
from manyicl_core.inference.schemas import (
    CompletionRequest,
    ForgetRequest,
    LabelScoresRequest,
    Placed,
    StructuredOutputs,
    usage,
)
from manyicl_core.inference.vocabulary import Vocabulary
from manyicl_core.method.labels import MAX_LABEL_TOKENS, LabelTree

_CLIENT_CLOSED_REQUEST = 499
_LABEL_SETS = 64
_OBJECT = "text_completion"
_MOST_ECHOED = 1_000_000
"""Log-probabilities of a body's prompts: a hundred bytes each."""

Result = TypeVar("Result")


class BadRequest(Refusal):
    """The request cannot be answered as it is."""

    status = 400
    code = "invalid_value"

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def create_app(
    engine: Engine,
    vocabulary: Vocabulary,
    base_model: str,
    max_waiting: int = 128,
    threads: int | None = None,
    fingerprint: str | None = None,
) -> FastAPI:
    """The HTTP application around one engine, which computes with ``threads``; answers tell its ``fingerprint``."""
    thread = EngineThread(engine, max_waiting, threads)
    service = Service(engine, thread, vocabulary, base_model, fingerprint)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        thread.start()
        yield
        thread.close()

    app = FastAPI(title="ManyICL engine", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.exception_handler(Refusal)(_refused)

    @app.get("/health")
    async def health() -> Response:
        alive = thread.is_alive
        return JSONResponse({"status": "ok" if alive else "stopped"}, 200 if alive else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        entry = {"id": base_model, "object": "model", "owned_by": "manyicl", "max_model_len": engine.max_tokens}
        return {"object": "list", "data": [entry]}

    @app.post("/v1/completions")
    async def completions(request: Request, body: CompletionRequest) -> Response:
        return await _while_connected(request, service.complete(body))

    @app.post("/v1/prefixes/forget")
    async def forget(body: ForgetRequest) -> dict[str, bool]:
        adapter = None if body.model == base_model else body.model
        for end in {len(body.tokens), *body.ends} - {0}:
            thread.forget(PrefixKey(adapter, body.cache_salt, tuple(body.tokens[:end])))
        return {"forgotten": True}

    @app.post("/v1/label_scores")
    async def label_scores(request: Request, body: LabelScoresRequest) -> Response:
        return await _while_connected(request, service.label_scores(body))

    return app


class Service:
    """From bodies to the engine's requests, and back."""

    def __init__(
        self, engine: Engine, thread: EngineThread, vocabulary: Vocabulary, base_model: str, fingerprint: str | None
    ) -> None:
        self._engine = engine
        self._thread = thread
        self._vocabulary = vocabulary
        self._base_model = base_model
        self._fingerprint = {"system_fingerprint": fingerprint}
        # A task's labels come with each of its queries.
        self._labels = lru_cache(maxsize=_LABEL_SETS)(self._label_tree)

    async def complete(self, body: CompletionRequest) -> Response:
        """``/v1/completions``."""
        prompts = body.prompts()
        if body.echo and sum(map(len, prompts)) * (1 + (body.logprobs or 0)) > _MOST_ECHOED:
            raise BadRequest(f"logprobs: echo would tell more than {_MOST_ECHOED:,}; ask for fewer", "invalid_value")
        # As at a vLLM server, the model's own end too; a task's answer has an end of its own, and only that.
        stop = frozenset(body.stop_token_ids or ([] if body.ignore_eos else self._vocabulary.ends))
        guide = await self._guide(body.structured_outputs, body.stop_token_ids)
        requests = [self._generation(body, tuple(prompt), stop, guide) for prompt in prompts]
        return await self._respond(requests, body)

    async def label_scores(self, body: LabelScoresRequest) -> Response:
        """``/v1/label_scores``."""
        labels = tuple(tuple(label) for label in body.labels)
        _check_labels(labels)
        longest = max(map(len, labels))
        for prompt in body.prompts:
            self._check(prompt, longest)
        for label in labels:
            self._check(label, 0)
        requests = [
            LabelScoring(
                adapter=self._adapter(body),
                prompt=tuple(prompt),
                prefix_tokens=body.prefix_tokens,
                salt=body.cache_salt,
                tenant=body.user or body.cache_salt,
                priority=body.priority,
                deadline=_deadline(body),
                labels=labels,
                alone=body.seed is not None,
            )
            for prompt in body.prompts
        ]
        self._thread.admit(requests[0].tenant, requests[0].priority)
        results = await _all([self._scores(request) for request in requests])
        totals = usage(sum(map(len, body.prompts)), 0, sum(result.cached_tokens for result in results))
        scores = [list(result.scores) for result in results]
        return JSONResponse({"scores": scores, "usage": totals, **self._fingerprint})

    async def _scores(self, request: LabelScoring) -> LabelScores:
        async with aclosing(self._thread.events(request)) as events:
            async for event in events:
                assert isinstance(event, LabelScores)
                return event
        raise AssertionError("the engine tells something or refuses")

    def _generation(
        self,
        body: CompletionRequest,
        prompt: tuple[int, ...],
        stop: frozenset[int],
        guide: Choices | Grammar | None,
    ) -> Generation:
        if body.max_tokens == 0 and not body.echo:
            raise BadRequest("max_tokens: 0 writes nothing; it is for echo alone", "invalid_value")
        if any(token >= self._engine.vocabulary for token in body.logit_bias):
            raise BadRequest("logit_bias: the model has no such token", "invalid_value")
        room = self._check(prompt, min(body.max_tokens, 1))
        return Generation(
            adapter=self._adapter(body),
            prompt=prompt,
            prefix_tokens=body.prefix_tokens,
            salt=body.cache_salt,
            tenant=body.user or body.cache_salt,
            priority=body.priority,
            deadline=_deadline(body),
            max_tokens=min(body.max_tokens, room),
            sampling=Sampling(
                temperature=body.temperature,
                top_p=body.top_p,
                seed=body.seed,
                presence_penalty=body.presence_penalty,
                frequency_penalty=body.frequency_penalty,
                logit_bias=tuple(body.logit_bias.items()),
                logprobs=body.logprobs,
            ),
            stop_texts=tuple(body.stop),
            stop_tokens=stop if body.structured_outputs is None else stop | self._vocabulary.ends,
            guide=guide,
            n=body.n,
            echo=body.echo,
        )

    def _adapter(self, body: Placed) -> str | None:
        return None if body.model == self._base_model else body.model

    def _check(self, prompt: list[int] | tuple[int, ...], needed: int) -> int:
        """How many tokens fit behind the prompt; the answer needs ``needed`` at least."""
        if max(prompt) >= self._engine.vocabulary:
            raise BadRequest(f"the model has no token {max(prompt)}", "invalid_value")
        room = self._engine.max_tokens - len(prompt)
        if room < needed:
            raise BadRequest(
                f"the prompt has {len(prompt)} tokens and the model reads at most {self._engine.max_tokens}; "
                "shorten it or lower max_shots",
                "context_length_exceeded",
            )
        return room

    def _label_tree(self, texts: tuple[str, ...], stop: int) -> LabelTree:
        answers = [(*self._vocabulary.plain(text), stop) for text in texts]
        _check_labels(answers)
        return LabelTree(answers)

    async def _guide(self, outputs: StructuredOutputs | None, stop: list[int]) -> Choices | Grammar | None:
        if outputs is None:
            return None
        if outputs.choice is not None:
            if not stop:
                raise BadRequest("structured_outputs.choice needs stop_token_ids", "missing_stop")
            return Choices(self._labels(tuple(outputs.choice), stop[0]))
        try:
            grammar = regex_grammar(outputs.regex) if outputs.regex is not None else json_grammar(outputs.json_schema)
            matcher = await asyncio.to_thread(compiled_grammar, self._vocabulary.grammars, grammar)
        except (BadGrammar, ValueError) as error:
            raise BadRequest(f"structured_outputs: {error}", "invalid_grammar") from error
        return Grammar(matcher)

    async def _respond(self, requests: list[Generation], body: CompletionRequest) -> Response:
        """The whole answer, or a stream of its pieces."""
        head = {"id": "gen-" + secrets.token_hex(12), "created": int(time.time()), "model": body.model}
        head |= self._fingerprint
        if body.stream and (len(requests) > 1 or requests[0].echo):
            raise BadRequest("stream: one prompt without echo at a time", "invalid_value")
        self._thread.admit(requests[0].tenant, requests[0].priority)
        if body.stream:
            events = self._thread.events(requests[0])
            # The first event is awaited here, so that a refusal still has its status.
            first = await anext(events)
            return StreamingResponse(self._chunks(first, events, head, requests[0]), media_type="text/event-stream")
        asked = requests[0].sampling.logprobs is not None
        choices = [
            Choice(asked, list(request.prompt) if request.echo else [])
            for request in requests
            for _ in range(request.n)
        ]
        await _all([self._collect(choices, number, request) for number, request in enumerate(requests)])
        totals = usage(
            sum(len(request.prompt) for request in requests),
            sum(choice.completion_tokens for choice in choices),
            sum(choice.cached_tokens for choice in choices[:: requests[0].n]),
        )

        def shown() -> Response:
            parts = [whole(index, choice, self._vocabulary) for index, choice in enumerate(choices)]
            return JSONResponse({**head, "object": _OBJECT, "choices": parts, "usage": totals})

        # A long prompt's log-probabilities take seconds to write out.
        return await asyncio.to_thread(shown) if asked else shown()

    async def _collect(self, choices: list[Choice], number: int, request: Generation) -> None:
        async with aclosing(self._thread.events(request)) as events:
            async for event in events:
                take(choices, number, request.n, event)

    async def _chunks(
        self, first: Event, rest: AsyncGenerator[Event, None], head: dict[str, Any], request: Generation
    ) -> AsyncIterator[str]:
        """Server-sent events: a chunk a delta, then one with the usage, then ``[DONE]``."""
        head = {**head, "object": _OBJECT}
        asked = request.sampling.logprobs is not None
        written = [0] * request.n
        async with aclosing(rest):
            event: Event | None = first
            while event is not None:
                assert isinstance(event, Delta)
                written[event.index] = event.completion_tokens
                # In each chunk: who leaves early has used what came so far.
                used = usage(len(request.prompt), sum(written), event.cached_tokens)
                shown = piece(event.index, asked, event, self._vocabulary)
                yield _event({**head, "choices": [shown], "usage": used})
                try:
                    event = await anext(rest, None)
                except Refusal as refusal:
                    yield _event(_error(refusal))
                    return
        yield _event({**head, "choices": [], "usage": used})
        yield "data: [DONE]\n\n"


async def _all(answers: list[Coroutine[Any, Any, Result]]) -> list[Result]:
    """The results in order; where one is refused, or nobody waits any more, the others are given up."""
    tasks = [asyncio.ensure_future(answer) for answer in answers]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _check_labels(labels: Sequence[Sequence[int]]) -> None:
    longest = max(map(len, labels))
    if longest > MAX_LABEL_TOKENS:
        raise BadRequest(
            f"a label has {longest} tokens and may have {MAX_LABEL_TOKENS}; shorten it, or ask for free text",
            "label_too_long",
        )


async def _while_connected(request: Request, answer: Coroutine[Any, Any, Response]) -> Response:
    """The answer, unless the client leaves first: then the engine stops working on it."""
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    finally:
        for task in (answering, leaving):
            task.cancel()


async def _left(request: Request) -> None:
    """Returns when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _deadline(body: Placed) -> float | None:
    return None if body.deadline_seconds is None else time.monotonic() + body.deadline_seconds


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def _error(refusal: Refusal) -> dict[str, Any]:
    kind = "invalid_request_error" if refusal.status < 429 else "server_error"
    return {"error": {"message": refusal.message, "type": kind, "param": None, "code": refusal.code}}


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    headers = {}
    if isinstance(error, Overloaded):
        headers["retry-after-ms"] = str(round(1000 * error.retry_after_seconds))
    return JSONResponse(_error(error), error.status, headers)
