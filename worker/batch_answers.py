"""Answer the requests of a batch, a bounded number at a time, until none is left or it must stop."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import structlog
from sqlalchemy.exc import DataError, OperationalError

from manyicl_core.answers.objects import AnswerObject
from manyicl_core.errors import InvalidRequest, UserError, envelope
from manyicl_core.ids import new_id
from manyicl_core.store.batches.lines import BatchRequest
from manyicl_core.store.batches.results import Result
from worker.stopping import all_done

CONCURRENCY = 12
"""Requests of a batch that the engine has at a time: two batches fill the three quarters of its 32 rows that it
gives to bulk requests, and whoever waits has the rest, whatever they send."""

_CHUNK_RESULTS = 100
_CHUNK_SECONDS = 2.0
_DATABASE_PAUSE_SECONDS = 1.0

_log = structlog.get_logger(__name__)

Answer = Callable[[dict[str, Any]], Awaitable[AnswerObject]]


class Answering:
    """One attempt at what is left of a batch.

    Args:
        answer: gives the answer to a request's body, or raises ``UserError``.
        record: makes results last; called in another thread.
    """

    def __init__(self, answer: Answer, record: Callable[[list[Result]], None]) -> None:
        self._answer = answer
        self._record = record
        self._results: list[Result] = []
        self._recorded_at = time.monotonic()

    async def run(self, requests: Iterator[BatchRequest], must_stop: Callable[[], bool]) -> bool:
        """Answer and record; say whether no request is left.

        When it must stop, requests on their way are dropped, and what is answered is recorded.
        """
        # All take the next request from the same iterator.
        tasks = [asyncio.create_task(self._ask_each(requests)) for _ in range(CONCURRENCY)]
        try:
            return await all_done(tasks, must_stop)
        finally:
            await self._record_results()

    async def _ask_each(self, requests: Iterator[BatchRequest]) -> None:
        for request in requests:
            result = await ask(self._answer, request)
            self._results.append(result)
            due = time.monotonic() - self._recorded_at > _CHUNK_SECONDS
            if due or len(self._results) >= _CHUNK_RESULTS:
                await self._record_results()

    async def _record_results(self) -> None:
        results, self._results = self._results, []
        self._recorded_at = time.monotonic()
        if results:
            await asyncio.to_thread(self._record, results)


async def ask(answer: Answer, request: BatchRequest) -> Result:
    """The answer to one request, or the error in its place.

    Refusals that pass (its context is being made) are waited out, as long as they say.
    """
    request_id = new_id("req_")
    while True:
        try:
            return Result(request.custom_id, 200, request_id, await answer(request.body))
        except UserError as error:
            if error.retry_after_ms is None:
                return _refused(request, request_id, error)
            pause = error.retry_after_ms / 1000
        except OperationalError:
            pause = _DATABASE_PAUSE_SECONDS
        except DataError:
            unstorable = InvalidRequest("A text holds a character that cannot be stored, such as NUL; remove it")
            return _refused(request, request_id, unstorable)
        except Exception as error:
            # A mistake of ours must not cost the other requests their answers.
            _log.error("unexpected_error", request_id=request_id, exc_info=error)
            message = "The server made a mistake; its log has the story under this request id"
            return Result(request.custom_id, 500, request_id, envelope(message, "server_error", None, None))
        await asyncio.sleep(pause)


def _refused(request: BatchRequest, request_id: str, error: UserError) -> Result:
    body = envelope(error.message, error.type, error.param, error.code)
    return Result(request.custom_id, error.status, request_id, body)
