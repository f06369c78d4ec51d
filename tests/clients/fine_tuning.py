"""Fine-tuning jobs, their checkpoints, and who else may use these."""

import time
from typing import Any

from openai import OpenAI

from tests.clients.methods import Methods, refused
from tests.clients.stored_files import EXAMPLES, jsonl

OPTIONS = {"max_sequence_tokens": 128, "n_epochs": 1, "tasks": [{"name": "colour", "labels": ["red", "blue"]}]}


def check_jobs(client: OpenAI, methods: Methods, model: str, finished: str | None) -> tuple[str, str]:
    """Every method of a job.

    Args:
        client: of a project of its own.
        methods: where it is told.
        model: the base model.
        finished: a job that has succeeded; None: workers run, and the one made here will.

    Returns:
        the model of the finished job, and a checkpoint of it that is a model too.
    """
    jobs: Any = client.fine_tuning.jobs
    file = client.files.create(file=("train.jsonl", jsonl(EXAMPLES)), purpose="fine-tune").id
    options = {"model": model, "training_file": file, "seed": 3, "suffix": "clients"}
    with methods("fine_tuning.jobs.create"):
        first = jobs.create(**options, metadata={"team": "a"}, extra_body={"manyicl": OPTIONS})
        assert (first.object, first.model, first.metadata) == ("fine_tuning.job", model, {"team": "a"})
        second = jobs.create(**options, hyperparameters={"n_epochs": 1})
        assert second.hyperparameters.n_epochs == 1
        assert refused(lambda: jobs.create(model=model, training_file="file-none")).param == "training_file"
    with methods("fine_tuning.jobs.list"):
        assert [job.id for job in jobs.list(limit=1)][:2] == [second.id, first.id], "newest first, page by page"
        assert [job.id for job in jobs.list(extra_query={"metadata[team]": "a"})] == [first.id]
    with methods("fine_tuning.jobs.pause"):
        paused = jobs.pause(second.id)
        assert (paused.status, paused.model_extra["manyicl"]["status"]) == ("queued", "paused")
    with methods("fine_tuning.jobs.resume"):
        assert jobs.resume(second.id).status == "queued"
    with methods("fine_tuning.jobs.cancel"):
        assert jobs.cancel(second.id).status == "cancelled"
    with methods("fine_tuning.jobs.retrieve"):
        job = jobs.retrieve(finished or first.id)
        while job.status not in ("succeeded", "failed", "cancelled"):
            time.sleep(0.5)
            job = jobs.retrieve(job.id)
        assert job.status == "succeeded", job.error
        assert job.fine_tuned_model.startswith("ft:")
        conflict = refused(lambda: jobs.cancel(job.id))
        assert (conflict.status_code, conflict.response.headers["x-should-retry"]) == (409, "false")
    with methods("fine_tuning.jobs.list_events"):
        events = list(jobs.list_events(job.id, limit=1))
        assert events and all(event.object == "fine_tuning.job.event" for event in events)
    with methods("fine_tuning.jobs.checkpoints.list"):
        checkpoints = list(jobs.checkpoints.list(job.id, limit=1))
        assert checkpoints and checkpoints[0].fine_tuning_job_id == job.id
    return job.fine_tuned_model, checkpoints[0].fine_tuned_model_checkpoint


def check_permissions(client: OpenAI, methods: Methods, checkpoint: str, project: str) -> None:
    """Another project is let in and shut out again."""
    permissions: Any = client.fine_tuning.checkpoints.permissions
    with methods("fine_tuning.checkpoints.permissions.create"):
        [given] = list(permissions.create(checkpoint, project_ids=[project]))
        assert (given.object, given.project_id) == ("checkpoint.permission", project)
    with methods("fine_tuning.checkpoints.permissions.retrieve"):
        assert [found.id for found in permissions.retrieve(checkpoint).data] == [given.id]
    if hasattr(permissions, "list"):
        with methods("fine_tuning.checkpoints.permissions.list"):
            assert [found.id for found in permissions.list(checkpoint)] == [given.id]
    with methods("fine_tuning.checkpoints.permissions.delete"):
        assert permissions.delete(given.id, fine_tuned_model_checkpoint=checkpoint).deleted
        assert permissions.retrieve(checkpoint).data == []
