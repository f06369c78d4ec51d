import asyncio
from contextlib import aclosing
from datetime import timedelta
from typing import Any, cast

import openai
import pytest
from openai import OpenAI
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from api.metered_engine import MeteredEngine, writing_usage
from manyicl_core.contract.progress import Started, StepMetrics
from manyicl_core.engines.client import EngineClient
from manyicl_core.settings import get_settings, required
from manyicl_core.store.batches import recorder as batch_recorder
from manyicl_core.store.batches.results import Result
from manyicl_core.store.jobs import recorder
from manyicl_core.store.jobs.parts import Part
from manyicl_core.store.leases import claim_work, give_up_lease, pause, renew_lease, resume
from manyicl_core.store.quotas.rate_limits import RateLimits
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Batch, Job, Usage
from manyicl_core.store.usage.interactive import InteractiveUsage
from manyicl_core.store.usage.service import INTERACTIVE, add_usage, served
from tests.batches import create_batch, request
from tests.fake_engine import FakeEngine, completion, running
from tests.jobs import create_job
from tests.quotas import chat, project_of, today
from tests.services import wait_for

ONE_PART = Part(0, 1, None)
NOTHING = {"num_model_requests": 0, "input_tokens": 0, "input_cached_tokens": 0, "output_tokens": 0}


def step(number: int, tokens: int) -> StepMetrics:
    return StepMetrics(
        step=number,
        loss=1.0,
        token_accuracy=0.5,
        learning_rate=0.1,
        gradient_norm=1.0,
        tokens=tokens,
        answers=1,
        seconds=0.1,
        loss_by_answer={},
        accuracy_by_answer={},
    )


def test_served_tokens_are_counted_plain_and_streamed(client: OpenAI) -> None:
    usage = chat(client).usage
    with chat(client, stream=True) as stream:
        assert list(stream)
    expected = {
        "num_model_requests": 2,
        "input_tokens": 2 * usage.prompt_tokens,
        "input_cached_tokens": 2 * usage.prompt_tokens_details.cached_tokens,
        "output_tokens": 2 * usage.completion_tokens,
    }
    wait_for(lambda: today(client), "the usage to be written", 10)
    used = today(client)
    assert used["interactive"] == expected
    assert used["batch"] == NOTHING
    assert {name: used[name] for name in expected} == expected


def test_what_was_served_is_written_at_the_end_of_the_api(client: OpenAI, api_key: str) -> None:
    async def serve() -> None:
        async with writing_usage() as usage:
            usage.add(project_of(api_key), served(INTERACTIVE, {"prompt_tokens": 5, "completion_tokens": 2}))

    asyncio.run(serve())
    assert today(client)["interactive"] == {**NOTHING, "num_model_requests": 1, "input_tokens": 5, "output_tokens": 2}


def test_a_stream_that_is_left_counts_what_was_sent(client: OpenAI, api_key: str) -> None:
    usage, rate_limits = InteractiveUsage(), RateLimits(required(get_settings(), "broker_url"))

    async def leave(url: str) -> None:
        engine = MeteredEngine(EngineClient(url), project_of(api_key), 1, rate_limits, usage)
        body = {"model": "a/base", "prompt": [5, 6, 7], "stream": True}
        async with aclosing(engine.stream("/v1/completions", body)) as chunks:
            await anext(chunks)
        await engine.engine.close()

    with running(FakeEngine(answers=[completion("one two", "three")], hold_stream=True)) as url:
        asyncio.run(leave(url))
    usage.write()
    rate_limits.close()
    assert today(client)["interactive"] == {**NOTHING, "num_model_requests": 1, "input_tokens": 3, "output_tokens": 2}


def test_trained_tokens_are_counted_once_however_often_a_step_is_repeated(client: OpenAI) -> None:
    job_id = create_job(client, evaluate=False).id
    plan = Started(step=0, steps=3, tokens=30, answers=3, target_tokens=9, dtype="float32")
    for steps in ((1, 2), (2, 3)):  # the second attempt goes on from a checkpoint after step 1
        with transaction() as session:
            session.execute(update(Job).where(Job.id == job_id).values(lease_expires_at=Job.created_at))
            claim = claim_work(session, Job, job_id, 60)
        assert claim is not None
        with transaction() as session:
            recorder.record_started(session, claim, ONE_PART, plan)
            for number in steps:
                recorder.record_step(session, claim, ONE_PART, step(number, 10))
    assert today(client)["trained_tokens"] == 30


def test_a_batchs_chunk_counts_once_however_often_it_is_recorded(client: OpenAI) -> None:
    batch_id = create_batch(client, [request("a")]).id
    body = {"usage": {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}}
    with transaction() as session:
        claim = claim_work(session, Batch, batch_id, 60)
        assert claim is not None
        for _ in range(2):
            batch_recorder.record_chunk(session, claim, 0, "key", [Result("a", 200, "req", body)])
    counted = {"num_model_requests": 1, "input_tokens": 7, "input_cached_tokens": 4, "output_tokens": 2}
    assert today(client)["batch"] == counted


def test_the_time_that_a_worker_holds_work_is_counted_once(client: OpenAI) -> None:
    job_id = create_job(client, evaluate=False).id

    def held(session: Session, seconds: int) -> None:
        session.execute(update(Job).where(Job.id == job_id).values(metered_at=func.now() - timedelta(seconds=seconds)))

    with transaction() as session:
        claim = claim_work(session, Job, job_id, 60)
        assert claim is not None
        held(session, 20)
        renew_lease(session, claim, 60)
        renew_lease(session, claim, 60)  # too soon for another row
    assert today(client)["worker_seconds"]["jobs"] == pytest.approx(20, abs=1)
    with transaction() as session:
        held(session, 5)
        give_up_lease(session, claim, lost=False)
    with transaction() as session:
        claim = claim_work(session, Job, job_id, 60)
        assert claim is not None
        held(session, 3)
        assert pause(session, session.get_one(Job, job_id))
        assert resume(session, session.get_one(Job, job_id))
        claim = claim_work(session, Job, job_id, 60)
        assert claim is not None
        held(session, 2)
        recorder.record_failure(session, claim, "engine_error", "over")
    assert today(client)["worker_seconds"]["jobs"] == pytest.approx(30, abs=1)


def test_usage_is_read_by_day_and_page(client: OpenAI, api_key: str) -> None:
    with transaction() as session:
        add_usage(session, project_of(api_key), {"trained_tokens": 3})
        session.execute(update(Usage).where(Usage.project_id == project_of(api_key)).values(day=Usage.day - 10))
        add_usage(session, project_of(api_key), {"trained_tokens": 4})

    def read(query: str) -> dict[str, Any]:
        return cast(dict[str, Any], client.get(f"/usage?{query}", cast_to=object))

    def trained(page: dict[str, Any]) -> list[int]:
        return [sum(result["trained_tokens"] for result in bucket["results"]) for bucket in page["data"]]

    week = read("")
    assert trained(week) == [0] * 6 + [4]
    assert not week["has_more"]
    start = week["data"][-1]["start_time"]
    first = read(f"start_time={start - 10 * 86400}&limit=8")
    assert trained(first) == [3] + [0] * 7
    assert first["has_more"]
    rest = read(f"start_time={start - 10 * 86400}&limit=8&page={first['next_page']}")
    assert trained(rest) == [0, 0, 4]
    assert (rest["has_more"], rest["next_page"]) == (False, None)
    assert trained(read(f"start_time={start - 10 * 86400}&end_time={start - 9 * 86400}")) == [3]
    with pytest.raises(openai.BadRequestError, match="page"):
        read("page=never")
    assert read("page=9999-12-31")["data"] == []
