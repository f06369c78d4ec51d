"""The broker is restarted: the first request after it sees what the last one before it saw."""

import signal
import subprocess
from collections.abc import Callable

from openai import OpenAI

from manyicl_core.child_process import stop
from tests.api.test_plan import body_of, plan
from tests.jobs import await_state, create_job
from tests.services import Servers, wait_for


def test_the_first_plan_and_job_after_it_find_the_worker(
    client: OpenAI, servers: Servers, start_worker: Callable[[], subprocess.Popen[str]]
) -> None:
    start_worker()
    body = body_of(client, lora={"rank": 100})
    wait_for(lambda: "no worker" not in (plan(client, body)["no_estimate"] or ""), "the worker")
    assert servers.broker is not None
    stop(servers.broker, 0, signal.SIGKILL)
    assert "no worker" not in (plan(client, body)["no_estimate"] or ""), "the broker is away, the worker is not"
    servers.start_valkey()
    assert "no worker" not in (plan(client, body)["no_estimate"] or "")
    created = create_job(client, evaluate=False)
    assert created.model_extra is not None
    assert created.model_extra["manyicl"]["waiting_for"]["reason"] != "no_worker"
    assert await_state(client, created.id, "succeeded", "failed").status == "succeeded"
