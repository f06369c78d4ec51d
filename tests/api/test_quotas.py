from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import openai
import pytest
from openai import OpenAI
from sqlalchemy import text
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from manyicl_core.cli.main import app
from manyicl_core.objects import open_store
from manyicl_core.settings import get_settings
from manyicl_core.store.engine import LOCK_WAIT
from manyicl_core.store.jobs import service as jobs
from manyicl_core.store.projects.schemas import SCOPES
from manyicl_core.store.projects.service import create_key, get_or_create_project
from manyicl_core.store.quotas import service
from manyicl_core.store.session import transaction
from manyicl_core.store.usage.service import TRAINED_TOKENS, add_usage
from tests.evaluations import QUERY, create_evaluation
from tests.jobs import create_job, example_lines, upload
from tests.keys import client_of, make_key
from tests.quotas import chat, give_quota, project_of, quotas, refused
from tests.services import BASE_MODEL, wait_for

LINE = b'{"task": "t", "input": "a", "output": "b"}\n'


def create_file(client: OpenAI) -> str:
    return client.files.create(file=("a.jsonl", LINE), purpose="fine-tune").id


def test_files_beyond_the_stored_bytes_are_refused_and_leave_nothing(client: OpenAI, api_key: str) -> None:
    give_quota(api_key, "stored_bytes", len(LINE))
    kept = create_file(client)
    store = open_store(str(get_settings().storage_url))
    contents = set(store.names("files"))
    with refused(openai.PermissionDeniedError, "stored_bytes"):
        create_file(client)
    assert set(store.names("files")) == contents
    assert quotas(client)["stored_bytes"] == {"name": "stored_bytes", "limit": len(LINE), "used": len(LINE)}
    client.files.delete(kept)
    create_file(client)


def test_uploads_at_once_do_not_share_the_last_bytes(client: OpenAI, api_key: str) -> None:
    give_quota(api_key, "stored_bytes", 3 * len(LINE))

    def admitted(_: int) -> bool:
        try:
            create_file(client)
        except openai.PermissionDeniedError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(admitted, range(8))) == 3


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "mine"}])
def test_a_request_that_waits_too_long_for_another_is_told_to_try_again(
    client: OpenAI, api_key: str, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    forward = service._lock

    def impatient(session: Session, project_id: str) -> None:
        assert session.scalar(text("SHOW lock_timeout")) == LOCK_WAIT
        session.execute(text("SET LOCAL lock_timeout = '50ms'"))
        forward(session, project_id)

    with transaction() as session:
        service.lock_project(session, project_of(api_key))
        monkeypatch.setattr(service, "_lock", impatient)
        with pytest.raises(openai.InternalServerError, match="Another request keeps what") as refused:
            client.files.create(file=("a.jsonl", LINE), purpose="fine-tune", extra_headers=headers)
    assert refused.value.status_code == 503
    assert int(refused.value.response.headers["retry-after-ms"]) > 0


def test_an_upload_reserves_the_bytes_that_it_announces(client: OpenAI, api_key: str) -> None:
    give_quota(api_key, "stored_bytes", len(LINE))

    def start() -> str:
        return client.uploads.create(
            bytes=len(LINE), filename="a.jsonl", mime_type="text/jsonl", purpose="fine-tune"
        ).id

    first = start()
    with refused(openai.PermissionDeniedError, "stored_bytes"):
        start()
    with refused(openai.PermissionDeniedError, "stored_bytes"):
        create_file(client)
    client.uploads.cancel(first)
    second = start()
    part = client.uploads.parts.create(second, data=LINE)
    assert client.uploads.complete(second, part_ids=[part.id]).status == "completed"
    assert quotas(client)["stored_bytes"]["used"] == len(LINE)


def test_a_file_beyond_the_quota_is_refused_before_its_lines_are_read(client: OpenAI, api_key: str) -> None:
    key = {"Idempotency-Key": "mine"}
    made = client.files.create(file=("a.jsonl", LINE), purpose="fine-tune", extra_headers=key)
    give_quota(api_key, "stored_bytes", len(LINE))
    with refused(openai.PermissionDeniedError, "stored_bytes"):
        client.files.create(file=("a.jsonl", b"{oops"), purpose="fine-tune")
    again = client.files.create(file=("a.jsonl", LINE), purpose="fine-tune", extra_headers=key)
    assert again == made, "a repeat gets its answer whatever is left"


def test_parts_count_where_they_are_more_than_their_upload_announced(client: OpenAI, api_key: str) -> None:
    give_quota(api_key, "stored_bytes", 15)
    upload_id = client.uploads.create(bytes=10, filename="a", mime_type="text/plain", purpose="user_data").id
    for sent, used in ((6, 10), (6, 12)):
        client.uploads.parts.create(upload_id, data=b"x" * sent)
        assert quotas(client)["stored_bytes"]["used"] == used
    with refused(openai.PermissionDeniedError, "stored_bytes"):
        client.uploads.parts.create(upload_id, data=b"x" * 4)
    client.uploads.parts.create(upload_id, data=b"x" * 3)
    client.uploads.cancel(upload_id)
    assert quotas(client)["stored_bytes"]["used"] == 0


def test_jobs_and_evaluations_wait_up_to_a_quota_and_refused_ones_leave_nothing(client: OpenAI, api_key: str) -> None:
    waiting = create_job(client, evaluate=False)
    give_quota(api_key, "queued_jobs", 1)
    # Data that no other test has.
    training, queries = upload(client, example_lines(2000, 6)), upload(client, example_lines(3000, 3))
    store = open_store(str(get_settings().storage_url))
    datasets = store.names("datasets")
    with refused(openai.RateLimitError, "queued_jobs"):
        client.fine_tuning.jobs.create(model=BASE_MODEL, training_file=training)
    with refused(openai.RateLimitError, "queued_jobs"):
        create_evaluation(client, model=BASE_MODEL, training_file=training, validation_file=queries, **QUERY)
    assert store.names("datasets") == datasets
    assert quotas(client)["queued_jobs"]["used"] == 1
    client.fine_tuning.jobs.cancel(waiting.id)
    create_job(client, evaluate=False)


def test_a_job_that_loses_the_last_place_to_another_leaves_nothing(
    client: OpenAI, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "hold_start", lambda *_: give_quota(api_key, "queued_jobs", 0))
    training = upload(client, example_lines(4000, 6))
    store = open_store(str(get_settings().storage_url))
    datasets = store.names("datasets")
    with refused(openai.RateLimitError, "queued_jobs"):
        client.fine_tuning.jobs.create(model=BASE_MODEL, training_file=training)
    assert store.names("datasets") == datasets


def test_training_stops_at_the_tokens_of_a_day(client: OpenAI, api_key: str) -> None:
    give_quota(api_key, "training_tokens_per_day", 1000)
    with refused(openai.RateLimitError, "training_tokens_per_day"):
        create_job(client, evaluate=False, n_epochs=None, token_budget=1001)
    create_job(client, evaluate=False, n_epochs=None, token_budget=1000)
    with transaction() as session:
        add_usage(session, project_of(api_key), {TRAINED_TOKENS: 1000})
    with refused(openai.RateLimitError, "training_tokens_per_day"):
        create_job(client, evaluate=False)
    assert quotas(client)["training_tokens_per_day"]["used"] == 1000


def test_requests_a_minute_are_limited_and_told(client: OpenAI, api_key: str) -> None:
    give_quota(api_key, "requests_per_minute", 2)
    first = client.chat.completions.with_raw_response.create(
        model=BASE_MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=1
    )
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-reset-requests"] in {"59s", "1m0s"}
    assert int(first.headers["x-ratelimit-remaining-tokens"]) > 0
    with chat(client, stream=True) as stream:
        assert stream.response.headers["x-ratelimit-remaining-requests"] == "0"
        assert list(stream)
    with refused(openai.RateLimitError, "requests_per_minute") as caught:
        chat(client)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"


def test_tokens_a_minute_are_limited_once_an_answer_has_used_them(client: OpenAI, api_key: str) -> None:
    give_quota(api_key, "tokens_per_minute", 1)
    with chat(client, stream=True) as stream:
        assert list(stream)

    def is_refused() -> bool:
        try:
            chat(client)
        except openai.RateLimitError as error:
            return "tokens_per_minute" in error.message
        return False

    # The tokens are counted beside the answer.
    wait_for(is_refused, "the tokens to be counted", 5)


def test_an_operator_reads_and_sets_quotas_over_the_api(installation: str) -> None:
    key = make_key()
    path = f"/organization/projects/{project_of(key)}/quotas"

    def limits(client: OpenAI, body: dict[str, int | None] | None = None) -> dict[str, int]:
        answer: Any = client.get(path, cast_to=object) if body is None else client.post(path, body=body, cast_to=object)
        return {quota["name"]: quota["limit"] for quota in answer["data"]}

    with client_of(installation, make_key(SCOPES)) as operator, client_of(installation, key) as admin:
        before = limits(admin)
        changed = before | {"queued_jobs": 7, "stored_bytes": 0}
        assert limits(operator, {"queued_jobs": 7, "stored_bytes": 0}) == limits(admin) == changed
        assert {name: quota["limit"] for name, quota in quotas(admin).items()} == changed
        with refused(openai.PermissionDeniedError, "stored_bytes"):
            create_file(admin)
        assert limits(operator, {"stored_bytes": None}) == before | {"queued_jobs": 7}
        assert limits(operator, {}) == before | {"queued_jobs": 7}
        for wrong in ({"queued_jobs": -1}, {"queued_jobs": 10**18}, {"queued_jobs": "7"}, {"jobs": 7}):
            with pytest.raises(openai.BadRequestError) as caught:
                limits(operator, cast(Any, wrong))
            assert caught.value.param == next(iter(wrong))
        with pytest.raises(openai.PermissionDeniedError, match="operator"):
            limits(admin, {"queued_jobs": 8})


def test_an_operator_reads_and_sets_quotas_on_the_command_line(client: OpenAI) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["quotas", *arguments])
        return result.output if result.exit_code == 0 else f"failed: {result.stderr}"

    with transaction() as session:
        project = get_or_create_project(session, "on-the-command-line")
        key = create_key(session, project)
    own = client.with_options(api_key=key)
    default = quotas(own)["queued_jobs"]["limit"]
    assert run("set", "queued_jobs", "7", "--project", project.name) == ""
    assert quotas(own)["queued_jobs"]["limit"] == 7
    assert quotas(client)["queued_jobs"]["limit"] == default
    assert "queued_jobs" in run("show", "--project", project.name)
    assert run("set", "queued_jobs", "default", "--project", project.name) == ""
    assert quotas(own)["queued_jobs"]["limit"] == default
    assert "known are stored_bytes" in run("set", "jobs", "7")
    assert "'-1'" in run("set", "queued_jobs", "--project", project.name, "--", "-1")
    assert "no project 'nobody'" in run("set", "queued_jobs", "7", "--project", "nobody")
    assert "no project 'nobody'" in run("show", "--project", "nobody")
