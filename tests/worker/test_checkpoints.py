import random
import subprocess
from collections.abc import Callable

import openai
import pytest
from openai import OpenAI
from sqlalchemy import select

from manyicl_core.objects import open_store, weights_key
from manyicl_core.settings import get_settings, required
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Checkpoint
from tests.jobs import await_state, create_job
from tests.services import on_both_stores

StartWorker = Callable[[], subprocess.Popen[str]]

# So high a rate that the loss soon rises: the best measurement comes before the last.
OVERSHOOTING = {
    "n_epochs": 20,
    "validation": {"every": 2, "sequences": 4},
    "optimizer": {"schedule": "constant", "warmup_fraction": 0.0},
}


def stored_files(sha256: str) -> list[str]:
    return open_store(required(get_settings(), "storage_url")).names(weights_key(sha256))


@on_both_stores
def test_the_best_and_the_last_checkpoint_stay_and_answer(client: OpenAI, start_worker: StartWorker) -> None:
    start_worker()
    created = create_job(client, learning_rate_multiplier=60.0, **OVERSHOOTING)
    job = await_state(client, created.id, "succeeded", "failed")
    assert job.status == "succeeded", job.error
    assert job.fine_tuned_model is not None
    kept = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=1))
    assert [checkpoint.object for checkpoint in kept] == ["fine_tuning.job.checkpoint"] * 2
    last, best = kept
    assert last.fine_tuned_model_checkpoint == job.fine_tuned_model
    assert best.fine_tuned_model_checkpoint == f"{job.fine_tuned_model}:ckpt-step-{best.step_number}"
    assert last.step_number > best.step_number
    assert best.metrics.valid_loss is not None and last.metrics.valid_loss is not None
    assert best.metrics.valid_loss < last.metrics.valid_loss

    events = client.fine_tuning.jobs.list_events(job.id, limit=1000)
    measured = [event.data["valid_loss"] for event in events if event.data and "valid_loss" in event.data]  # type: ignore[index,operator]
    assert min(measured) == best.metrics.valid_loss

    # Both answer, each with weights of its own; no optimizer state is kept.
    hashes = set()
    for checkpoint in kept:
        model = client.models.retrieve(checkpoint.fine_tuned_model_checkpoint)
        assert model.model_extra is not None
        hashes.add(model.model_extra["weights_sha256"])
        answer = client.chat.completions.create(
            model=model.id, messages=[{"role": "user", "content": "thing 1"}], extra_body={"manyicl": {"task": "sum"}}
        )
        assert answer.choices[0].finish_reason is not None
    assert len(hashes) == 2
    for sha256 in hashes:
        assert stored_files(sha256) == ["adapter_config.json", "adapter_model.safetensors", "manyicl.json"]
    with transaction() as session:
        assert session.scalars(select(Checkpoint.key).where(Checkpoint.job_id == job.id)).all() == [None, None]

    # Deleting the model takes its checkpoints and its weights along.
    client.models.delete(job.fine_tuned_model)
    assert client.fine_tuning.jobs.checkpoints.list(job.id).data == []
    assert [stored_files(sha256) for sha256 in hashes] == [[], []]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(best.fine_tuned_model_checkpoint)


def test_training_stops_when_patience_is_over_and_the_best_weights_count(
    client: OpenAI, start_worker: StartWorker
) -> None:
    start_worker()
    options = OVERSHOOTING | {"validation": {"every": 2, "sequences": 4, "patience": 2}}
    job = await_state(client, create_job(client, learning_rate_multiplier=60.0, **options).id, "succeeded", "failed")
    assert job.status == "succeeded", job.error
    assert job.model_extra is not None
    [only] = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert only.fine_tuned_model_checkpoint == job.fine_tuned_model
    steps = [event for event in client.fine_tuning.jobs.list_events(job.id, limit=1000) if event.type == "metrics"]
    assert len(steps) == only.step_number + 2 * 2, "two measurements without a new best"
    assert len(steps) < job.model_extra["manyicl"]["plan"]["steps"]


def test_two_jobs_with_the_same_weights_share_them(client: OpenAI, start_worker: StartWorker) -> None:
    start_worker()
    # A learning rate that no other test draws: the weights of their jobs, which stay, are other weights.
    multiplier = random.uniform(0.5, 1.5)
    jobs = [create_job(client, evaluate=False, learning_rate_multiplier=multiplier) for _ in range(2)]
    made = [await_state(client, job.id, "succeeded", "failed") for job in jobs]
    [sha256] = {(job.model_extra or {})["manyicl"]["weights_sha256"] for job in made}
    first, second = (str(job.fine_tuned_model) for job in made)
    client.models.delete(first)
    assert stored_files(sha256)
    answer = client.chat.completions.create(model=second, messages=[{"role": "user", "content": "hi"}], max_tokens=2)
    assert answer.choices[0].finish_reason is not None
    client.models.delete(second)
    assert stored_files(sha256) == []
