import subprocess
from collections.abc import Callable

import openai
import pytest
from openai import OpenAI

from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Job
from tests.jobs import await_state, create_job, recorded_checkpoints
from tests.services import Servers, wait_for


def test_a_job_goes_on_through_a_restart_of_the_database(
    client: OpenAI, start_worker: Callable[[], subprocess.Popen[str]], servers: Servers
) -> None:
    start_worker()
    job = create_job(client, evaluate=False, n_epochs=60)
    wait_for(lambda: recorded_checkpoints(job.id) >= 1, "a checkpoint")
    servers.stop_postgres()
    try:
        with pytest.raises(openai.InternalServerError) as refused:
            client.fine_tuning.jobs.retrieve(job.id)
        assert refused.value.status_code == 503
        assert "database does not answer" in refused.value.message
    finally:
        servers.start_postgres()
    done = await_state(client, job.id, "succeeded", "failed")
    assert done.status == "succeeded", done.error
    with transaction() as session:
        row = session.get_one(Job, job.id)
        assert (row.fence, row.infrastructure_failures) == (1, 0), "the job was started anew"
