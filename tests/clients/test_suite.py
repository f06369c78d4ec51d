"""The installed version of the client; ``benchmarks.client_versions`` tries three of them."""

from pathlib import Path

import pytest
from openai import OpenAI

from manyicl_core.ids import new_id
from manyicl_core.store.projects.service import get_or_create_project
from manyicl_core.store.session import transaction
from tests.clients.methods import PASSED
from tests.clients.suite import try_all
from tests.finished_jobs import finish
from tests.jobs import create_job
from tests.services import BASE_MODEL


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # the client's own, for methods that are deprecated
def test_every_method_of_the_client_works(client: OpenAI, tiny_model: Path, tmp_path: Path) -> None:
    job = create_job(client, evaluate=False)
    finish(job.id, tiny_model, tmp_path)
    with transaction() as session:
        other_project = get_or_create_project(session, new_id("p")).id
    results = try_all(client, BASE_MODEL, other_project, job.id)
    failed = [f"{name}: {result}" for name, result in results.items() if result != PASSED]
    assert not failed, "\n".join(failed)
