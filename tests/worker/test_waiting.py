"""What waiting work says that it waits for."""

from datetime import timedelta

import pytest
from openai import OpenAI
from sqlalchemy import delete, func
from sqlalchemy.orm import Session

from manyicl_core.ids import new_id
from manyicl_core.store.hints import HOSTING_QUEUE, JOBS_QUEUE
from manyicl_core.store.quotas.service import set_quota
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Evaluation, Job, Leased, Worker
from manyicl_core.store.usage.service import TRAINED_TOKENS, add_usage
from manyicl_core.store.waiting import WaitingFor, waiting_for
from manyicl_core.store.workers import job_places, record_alive, record_gone
from tests.jobs import create_job
from tests.worker.test_fair_queue import evaluation, job, new_project, run, session

__all__ = ["session"]


@pytest.fixture
def worker(session: Session) -> str:
    """The only worker of jobs, which does one at a time."""
    session.execute(delete(Worker))
    id_ = new_id("worker-")
    record_alive(session, id_, JOBS_QUEUE, 1, 60)
    record_alive(session, new_id("worker-"), HOSTING_QUEUE, 8, 60)
    return id_


def told(session: Session, table: type[Leased], id_: str) -> WaitingFor:
    return waiting_for(session, [session.get_one(table, id_)])[id_]


def test_it_says_how_many_are_before_it(session: Session, worker: str) -> None:
    first, second = job(session, new_project(session), 10**9), evaluation(session, new_project(session), 10**9 - 1)
    third = job(session, new_project(session), 10**9 - 2)
    if job_places(session, JOBS_QUEUE).taken == 0:
        assert told(session, Job, first).reason == "worker"
    run(session, Job, first)
    assert waiting_for(session, [session.get_one(Job, first)]) == {}
    assert [told(session, Evaluation, second).position, told(session, Job, third).position] == [0, 1]
    behind = told(session, Job, third)
    assert behind.reason == "busy_workers"
    assert behind.message.startswith("Waits for a worker: 1 job or evaluation before it, ")
    session.get_one(Job, first).lease_expires_at = func.now() - timedelta(seconds=1)
    session.flush()
    session.expire_all()
    assert told(session, Job, first).position == 0, "its worker is lost, so it waits again"


def test_without_a_worker_it_says_how_one_is_started(session: Session, worker: str) -> None:
    waiting = job(session, new_project(session), 1)
    record_gone(session, worker)
    assert told(session, Job, waiting).reason == "no_worker"
    assert "`manyicl worker`" in told(session, Job, waiting).message
    record_alive(session, worker, JOBS_QUEUE, 1, -1)
    assert told(session, Job, waiting).reason == "no_worker", "the worker has been silent for too long"


@pytest.mark.usefixtures("worker")
def test_it_names_the_quota_that_holds_it_back(session: Session) -> None:
    project = new_project(session)
    set_quota(session, project, "running_jobs", 1)
    running, waiting = job(session, project, 9), job(session, project, 8)
    run(session, Job, running)
    assert told(session, Job, waiting).reason == "running_jobs"
    assert "at most 1 job or evaluation of it" in told(session, Job, waiting).message
    set_quota(session, project, "running_jobs", 8)
    set_quota(session, project, "training_tokens_per_day", 10)
    add_usage(session, project, {TRAINED_TOKENS: 10})
    measured = evaluation(session, project, 1)
    assert told(session, Job, waiting).reason == "training_tokens_per_day"
    assert told(session, Evaluation, measured).position is not None


def test_a_job_tells_it_in_its_object_and_in_its_story(client: OpenAI) -> None:
    with transaction() as session_:
        session_.execute(delete(Worker))
    created = create_job(client)
    jobs = client.fine_tuning.jobs
    for shown in (created, jobs.retrieve(created.id), jobs.list().data[0]):
        assert shown.model_extra is not None
        assert shown.model_extra["manyicl"]["waiting_for"]["reason"] == "no_worker"
    [event] = jobs.list_events(created.id, limit=1).data
    assert (event.level, event.message) == ("info", "No worker answers; start one with `manyicl worker`")
    paused = jobs.pause(created.id)
    assert paused.model_extra is not None
    assert paused.model_extra["manyicl"]["waiting_for"] is None
