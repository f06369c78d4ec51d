import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from manyicl_core.errors import InvalidRequest, StorageFull, Unavailable
from manyicl_core.store.batches.lines import BatchRequest
from manyicl_core.store.batches.results import Result
from worker import batch_answers
from worker.batch_answers import CONCURRENCY, Answering, ask


class Soon(Unavailable):
    """Full for a moment."""

    retry_after_ms = 1


def requests(count: int) -> Iterator[BatchRequest]:
    return (BatchRequest(str(number), {"number": number}) for number in range(count))


async def echo(body: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"echo": body["number"]}


async def never(body: dict[str, Any]) -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError(body)


def test_every_request_is_answered_and_recorded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_answers, "_CHUNK_RESULTS", 7)
    chunks: list[list[Result]] = []

    def record(results: list[Result]) -> None:
        chunks.append(list(results))  # a copy: what comes to it later is lost

    assert asyncio.run(Answering(echo, record).run(requests(100), lambda: False))
    results = [result for chunk in chunks for result in chunk]
    assert Counter(result.custom_id for result in results) == Counter(str(number) for number in range(100))
    assert all(result.body == {"echo": int(result.custom_id)} and result.succeeded for result in results)
    assert len(chunks) >= 10, "results are recorded as they come"


def test_so_many_requests_and_no_more_are_on_their_way() -> None:
    on_their_way: list[int] = [0, 0]

    async def answer(body: dict[str, Any]) -> dict[str, Any]:
        on_their_way[0] += 1
        on_their_way[1] = max(on_their_way)
        await asyncio.sleep(0)
        on_their_way[0] -= 1
        return body

    asyncio.run(Answering(answer, lambda results: None).run(requests(200), lambda: False))
    assert on_their_way == [0, CONCURRENCY]


def test_what_is_answered_before_a_stop_is_recorded() -> None:
    recorded: list[Result] = []

    async def answer(body: dict[str, Any]) -> dict[str, Any]:
        return await (echo if body["number"] < 5 else never)(body)

    looks = iter([False, True])
    assert not asyncio.run(Answering(answer, recorded.extend).run(requests(100), lambda: next(looks)))
    assert {result.custom_id for result in recorded} == {"0", "1", "2", "3", "4"}


def test_a_refusal_that_passes_is_waited_out() -> None:
    refusals = iter([Soon("full"), Soon("full")])

    async def answer(body: dict[str, Any]) -> dict[str, Any]:
        for refusal in refusals:
            raise refusal
        return body

    result = asyncio.run(ask(answer, BatchRequest("a", {"number": 1})))
    assert (result.succeeded, result.body) == (True, {"number": 1})


@pytest.mark.parametrize(
    ("raised", "status", "param"), [(InvalidRequest("n: too many", "n"), 400, "n"), (ZeroDivisionError(), 500, None)]
)
def test_another_error_is_the_answer_of_its_request_alone(raised: Exception, status: int, param: str | None) -> None:
    recorded: list[Result] = []

    async def answer(body: dict[str, Any]) -> dict[str, Any]:
        if body["number"] == 3:
            raise raised
        return body

    assert asyncio.run(Answering(answer, recorded.extend).run(requests(10), lambda: False))
    failed = [result for result in recorded if not result.succeeded]
    assert [(result.custom_id, result.status) for result in failed] == [("3", status)]
    assert failed[0].body["error"]["param"] == param
    assert len(recorded) == 10


def test_a_full_store_ends_the_attempt() -> None:
    def record(results: list[Result]) -> None:
        raise StorageFull("no room")

    with pytest.raises(StorageFull):
        asyncio.run(Answering(echo, record).run(requests(10), lambda: False))
