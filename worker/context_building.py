"""Build one hosted context: choose its demonstrations, keep its tokens, have the engine compile the prefix.

It answers as soon as the demonstrations are chosen. All of it may be done again: the same row
always gives the same context, and what the engine has compiled before costs nothing.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

from sqlalchemy.orm import Session

from manyicl_core.answers.answer_text import AnswerText
from manyicl_core.base_models.catalog import find_base_model, prefix_bytes_per_token
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.engines.client import open_engines
from manyicl_core.engines.patient_engine import PatientEngine
from manyicl_core.errors import UserError
from manyicl_core.method.contexts import Context as ChosenContext
from manyicl_core.method.encoding import ANSWER_ENDS, Encoder
from manyicl_core.method.selection import SelectionKind
from manyicl_core.method.tasks import Example
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.contexts import recorder
from manyicl_core.store.contexts.compiled import (
    CompiledContext,
    compile_tokens,
    delete_source,
    load_compiled,
    load_source,
    put_compiled,
)
from manyicl_core.store.contexts.context_object import SelectedObject
from manyicl_core.store.contexts.hosting import Forget, prefix_of
from manyicl_core.store.contexts.options import AUTO
from manyicl_core.store.contexts.salts import cache_salt, tenant
from manyicl_core.store.contexts.service import ANSWER_ROOM, label_texts
from manyicl_core.store.leases import Claim, LeaseLost
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Context
from worker.attempt import Attempt, Kind, WorkFailed, attempt, model_folder
from worker.automatic_selection import choose_automatically
from worker.demonstrations import Draw
from worker.process import ProcessDied
from worker.stopping import all_done

_INTERACTIVE, _BULK = 0, 1
_AT_ONCE = 8


def build_context(context_id: str) -> None:
    """Take the context if it waits for a worker, and see it through."""
    attempt(CONTEXT, context_id)


class ContextBuild:
    """One attempt at a context."""

    def __init__(self, work: Attempt[Context], engine: PatientEngine, forget: Forget) -> None:
        self._work = work
        self._row = work.row
        self._engine = engine
        self._forget = forget
        self._encoder: Encoder = load_encoder(model_folder(work.row.base_model))

    async def build(self) -> None:
        """Do what no earlier attempt has done, and record the success.

        Raises:
            WorkFailed: nothing fits, or the engine refuses the context.
            ProcessDied: the work was lost meanwhile.
        """
        if self._row.artifact is None:
            compiled = await self._choose()
        else:
            compiled = load_compiled(self._work.store, self._row.artifact)
        # With one token behind it, as every query has: a prefix alone is no prompt.
        prompt = [*compiled.tokens, self._encoder.query("?")[0]]
        await self._complete(self._body(prompt, len(compiled.tokens)) | {"max_tokens": 1, "priority": _INTERACTIVE})
        self._work.write(lambda session: recorder.record_success(session, self._work.claim))

    async def _choose(self) -> CompiledContext:
        row, store, claim = self._row, self._work.store, self._work.claim
        try:
            task = load_source(store, row.id)
        except FileNotFoundError as error:
            raise WorkFailed("invalid_data", "the context was deleted while it was built") from error
        draw = Draw(self._encoder, task, row.seed, row.max_shots, row.max_tokens)
        if row.selection == AUTO:
            chosen, selected = await self._choose_automatically(draw)
        else:
            chosen = draw.context(cast(SelectionKind, row.selection))
            selected = SelectedObject(selection=row.selection)
        if not chosen.shots:
            raise WorkFailed(
                "invalid_data",
                f"no demonstration fits: max_tokens is {row.max_tokens}, and {chosen.ends[0]} are the instruction; "
                "raise max_tokens or shorten the examples",
            )
        compiled = compile_tokens(self._encoder, chosen, row.labels)
        base = find_base_model(row.base_model)
        assert base is not None
        size = len(compiled.tokens) * prefix_bytes_per_token(base)
        key = put_compiled(store, row.id, claim.fence, compiled)
        try:
            self._work.write(lambda session: recorder.record_chosen(session, claim, key, chosen, size, selected))
        except LeaseLost:
            store.delete(key)
            raise
        delete_source(store, row.id)
        return compiled

    async def _choose_automatically(self, draw: Draw) -> tuple[ChosenContext, SelectedObject]:
        """The context behind which the model answers best; the engines keep none that was only tried."""
        tried: list[ChosenContext] = []

        async def answers(context: ChosenContext, queries: Sequence[Example]) -> list[str]:
            tried.append(context)
            return await self._answers(context, queries)

        try:
            return await choose_automatically(draw, answers)
        finally:
            # Before the chosen one is recorded: whoever takes up a lost build tries them again, and comes by here.
            # Before it is compiled: with a prefix go its starts, and it may be one.
            await asyncio.gather(*(self._forget(prefix_of(self._row, context.tokens)) for context in tried))

    async def _answers(self, context: ChosenContext, queries: Sequence[Example]) -> list[str]:
        """What the model answers behind ``context``; the first query alone, so that one compiles for all."""
        longest = max(len(self._encoder.answer(query.output)) for query in queries)
        limits: dict[str, Any] = {"max_tokens": min(ANSWER_ROOM, 2 * longest), "priority": _BULK}
        if self._row.labels is not None:
            limits |= {"max_tokens": ANSWER_ROOM, "structured_outputs": {"choice": label_texts(self._row.labels)}}
        room = asyncio.Semaphore(_AT_ONCE)

        async def ask(query: Example) -> str:
            prompt = [*context.tokens, *self._encoder.query(query.input, query.earlier)]
            async with room:
                answer = await self._complete(self._body(prompt, len(context.tokens)) | limits)
            text = AnswerText()
            return text.push(answer["choices"][0]["text"]) + text.flush()

        first = await ask(queries[0])
        rest = [asyncio.create_task(ask(query)) for query in queries[1:]]
        # When one fails, no other goes on: it would bring a prefix back that is forgotten.
        await all_done(rest, lambda: False)
        return [first, *(task.result() for task in rest)]

    async def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._engine.complete("/v1/completions", body)
        except UserError as error:
            raise WorkFailed("engine_error", f"the engine refuses the context: {error.message}") from error

    def _body(self, prompt: list[int], prefix_tokens: int) -> dict[str, Any]:
        return {
            "model": self._row.weights_sha256 or self._row.base_model,
            "prompt": prompt,
            "prefix_tokens": prefix_tokens,
            "cache_salt": cache_salt(self._row.project_id, self._row.weights_sha256),
            "user": tenant(self._row.project_id),
            "temperature": 0.0,
            "stop_token_ids": [self._encoder.stop],
            "stop": list(ANSWER_ENDS),
        }


def _run(work: Attempt[Context]) -> None:
    asyncio.run(_build(work))


async def _build(work: Attempt[Context]) -> None:
    client = open_engines(work.settings, work.store)
    try:
        building = asyncio.create_task(ContextBuild(work, PatientEngine(client), client.forget).build())
        if not await all_done([building], work.heartbeat.stop.is_set):
            raise ProcessDied("stopped while it was built")
    finally:
        await client.close()


def _fail(store: ArtifactStore, claim: Claim[Context], code: str, message: str) -> None:
    _end(lambda session: recorder.record_failure(session, claim, code, message))


def _cancel(store: ArtifactStore, claim: Claim[Context]) -> None:
    _end(lambda session: recorder.record_cancelled(session, claim))


def _end(record: Callable[[Session], None]) -> None:
    with transaction() as session:
        record(session)


CONTEXT = Kind(table=Context, run=_run, fail=_fail, cancel=_cancel)
