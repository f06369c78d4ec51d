"""A job that has succeeded without any training: what its worker would have written, with random weights."""

from pathlib import Path

from manyicl_core.contract.progress import Started, StepMetrics, Trained
from manyicl_core.objects import open_store, put_weights
from manyicl_core.settings import get_settings
from manyicl_core.store.jobs.checkpoints import record_trained
from manyicl_core.store.jobs.parts import Part
from manyicl_core.store.jobs.recorder import record_started, record_step, record_success
from manyicl_core.store.leases import claim_work
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Job
from tests.unit.random_adapter import save_random_adapter

STEP = StepMetrics(
    step=1,
    loss=2.0,
    token_accuracy=0.5,
    learning_rate=1e-4,
    gradient_norm=1.0,
    tokens=100,
    answers=10,
    seconds=0.5,
    loss_by_answer={},
    accuracy_by_answer={},
)


def started(steps: int) -> Started:
    return Started(steps=steps, tokens=100, answers=10, target_tokens=20, dtype="float32", step=0)


def finish(job_id: str, model_folder: Path, folder: Path) -> None:
    """End a queued job well after one step; its adapter for the model in ``model_folder`` is made in ``folder``."""
    store = open_store(str(get_settings().storage_url))
    weights = put_weights(store, save_random_adapter(model_folder, folder / "adapter", 11))
    part = Part(0, 1, None)
    with transaction() as session:
        claim = claim_work(session, Job, job_id, 60)
        assert claim is not None
        record_started(session, claim, part, started(steps=1))
        record_step(session, claim, part, STEP)
        trained = Trained(step=1, folder=str(folder), peak_memory_bytes=1)
        record_trained(session, claim, part, trained, weights)
        record_success(session, claim, store, [part])
