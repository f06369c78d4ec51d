import os
import signal
import subprocess
from collections.abc import Callable

import pytest
from openai import OpenAI

from manyicl_core.embedded import free_port
from manyicl_core.store import hints
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Context
from tests.contexts import PASTED, ask, create_context, get_context, told
from tests.services import wait_for

StartHosting = Callable[[], subprocess.Popen[str]]


def test_a_context_outlives_its_worker_its_hint_and_an_engine_that_is_away(
    client: OpenAI, start_hosting: StartHosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = client.with_options(max_retries=20)
    with monkeypatch.context() as environment:
        environment.setenv("MANYICL_ENGINE_URL", f"http://127.0.0.1:{free_port()}")
        worker = start_hosting()
    context_id = create_context(client, **PASTED)["id"]
    # The client tries again by itself while the demonstrations are chosen, and needs no compiled prefix.
    assert told(ask(patient, context_id))["shots"] == 10
    assert get_context(client, context_id)["status"] == "running", "the worker waits for its engine"

    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    waiting = create_context(client, **PASTED, seed=1)["id"]
    with hints.get_celery().connection_for_write() as connection:
        connection.default_channel.client.flushall()
    start_hosting()
    for made in (context_id, waiting):
        wait_for(lambda made=made: get_context(client, made)["status"] == "succeeded", f"context {made}")  # type: ignore[misc]
    with transaction() as session:
        taken_up = session.get_one(Context, context_id)
        assert (taken_up.fence, taken_up.infrastructure_failures) == (2, 1)
    assert told(ask(client, waiting))["cached_tokens"] > 0
