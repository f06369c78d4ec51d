from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import func
from sqlalchemy.orm import Session

from manyicl_core.ids import new_id
from manyicl_core.store.engine import get_engine
from manyicl_core.store.fair_queue import Rows, Waiting, claim_waiting, waiting_work
from manyicl_core.store.job_states import QUEUED, RUNNING
from manyicl_core.store.projects.service import get_or_create_project
from manyicl_core.store.quotas.service import set_quota
from manyicl_core.store.tables import Batch, Context, Evaluation, Job, Leased
from manyicl_core.store.usage.service import TRAINED_TOKENS, add_usage

FAR = 1_000_000


@pytest.fixture
def session(installation: str) -> Iterator[Session]:
    """One whose rows nobody else ever sees."""
    with Session(get_engine()) as session_:
        yield session_


def new_project(session: Session) -> str:
    return get_or_create_project(session, new_id("fair-")).id


def add(session: Session, row: Leased, age: int) -> str:
    """Add a waiting row of so many seconds of age."""
    row.id, row.state = new_id("row-"), QUEUED
    session.add(row)
    session.flush()
    row.created_at = func.now() - timedelta(seconds=age)
    session.flush()
    return row.id


def batch(session: Session, project_id: str, age: int) -> str:
    fields = {"endpoint": "e", "completion_window": "24h", "input_file": "f", "labels": {}, "expires_at": func.now()}
    return add(session, Batch(project_id=project_id, **fields), age)


def context(session: Session, project_id: str, age: int, selection: str = "random") -> str:
    fields = {"model": "m", "base_model": "m", "examples": 1, "instruction": "", "max_tokens": 1, "seed": 0}
    return add(session, Context(project_id=project_id, selection=selection, annotations={}, **fields), age)


def job(session: Session, project_id: str, age: int) -> str:
    fields = {"base_model": "m", "seed": 0, "training_file": "f", "hyperparameters": {}, "options": {}, "dataset": "d"}
    return add(session, Job(project_id=project_id, labels={}, **fields), age)


def evaluation(session: Session, project_id: str, age: int) -> str:
    fields = {"base_model": "m", "models": [], "dataset": "d", "tasks": [], "options": {}, "seed": 0}
    return add(session, Evaluation(project_id=project_id, **fields), age)


def in_line(session: Session, tables: list[type[Leased]], *projects: str) -> list[str]:
    """What waits for these projects; other tests' work is not looked at."""
    return [row.id for row in waiting_work(session, tables, FAR) if row.project_id in projects]


def run(session: Session, table: type[Leased], id_: str) -> None:
    row = session.get_one(table, id_)
    row.state, row.lease_expires_at = RUNNING, func.now() + timedelta(seconds=60)
    session.flush()


def test_a_hundred_jobs_of_one_project_do_not_starve_anothers_one(session: Session) -> None:
    busy, other = new_project(session), new_project(session)
    many = [batch(session, busy, 1000 - number) for number in range(100)]
    one = context(session, other, 1)
    assert in_line(session, [Context, Batch], busy, other) == [many[0], one, *many[1:]]
    run(session, Batch, many[0])
    assert in_line(session, [Context, Batch], busy, other) == [one, *many[1:]]
    run(session, Context, one)
    assert in_line(session, [Context, Batch], busy, other) == many[1:]


def test_work_for_which_a_worker_has_no_room_takes_no_place_before_other_work(session: Session) -> None:
    project = new_project(session)
    slow = [context(session, project, 9 + number, "auto") for number in range(3)]
    short = context(session, project, 1)
    but_for: Rows = {Context: Context.selection == "auto"}
    own = [row.id for row in waiting_work(session, [Context], FAR, but_for) if row.project_id == project]
    assert own == [short]
    assert in_line(session, [Context], project) == [*reversed(slow), short]


def test_work_of_a_silent_worker_waits_again_and_does_not_count_as_running(session: Session) -> None:
    project, other = new_project(session), new_project(session)
    lost, waiting, others = batch(session, project, 9), batch(session, project, 8), batch(session, other, 7)
    run(session, Batch, lost)
    assert in_line(session, [Batch], project, other) == [others, waiting]
    session.get_one(Batch, lost).lease_expires_at = func.now() - timedelta(seconds=1)
    session.flush()
    assert in_line(session, [Batch], project, other) == [lost, others, waiting]


def test_a_project_runs_no_more_jobs_than_its_quota(session: Session) -> None:
    project = new_project(session)
    set_quota(session, project, "running_jobs", 2)
    first, second = evaluation(session, project, 9), job(session, project, 8)
    third = job(session, project, 7)
    assert in_line(session, [Job, Evaluation], project) == [first, second]
    assert claim_waiting(session, Waiting(Evaluation, first, project), 60) is not None
    assert in_line(session, [Job, Evaluation], project) == [second]
    assert claim_waiting(session, Waiting(Job, second, project), 60) is not None
    assert in_line(session, [Job, Evaluation], project) == []
    assert claim_waiting(session, Waiting(Job, third, project), 60) is None
    set_quota(session, project, "running_jobs", None)
    assert in_line(session, [Job, Evaluation], project) == [third]


def test_a_new_job_waits_for_another_day_when_the_tokens_are_trained_and_a_lost_one_goes_on(session: Session) -> None:
    project = new_project(session)
    set_quota(session, project, "training_tokens_per_day", 10)
    lost, waiting = job(session, project, 9), job(session, project, 8)
    measured = evaluation(session, project, 7)
    run(session, Job, lost)
    session.get_one(Job, lost).lease_expires_at = func.now() - timedelta(seconds=1)
    assert in_line(session, [Job, Evaluation], project) == [lost, waiting, measured]
    add_usage(session, project, {TRAINED_TOKENS: 10})
    assert in_line(session, [Job, Evaluation], project) == [lost, measured]
