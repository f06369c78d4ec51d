"""A fine-tuned model of a project, with random weights, that no trainer had to make."""

from pathlib import Path

from openai import OpenAI

from manyicl_core.method.encoding import ENCODER_VERSION, template_hash
from manyicl_core.objects import open_store, put_weights
from manyicl_core.settings import get_settings
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Job, Model
from manyicl_core.store.tasks.datasets import load_dataset
from manyicl_core.store.tasks.task_models import kept_definitions
from tests.jobs import create_job
from tests.services import BASE_MODEL
from tests.unit.random_adapter import save_random_adapter


def add_tuned_model(client: OpenAI, tiny_model: Path, folder: Path) -> str:
    """Make a job and, in its name, a model; gives the model's id."""
    store = open_store(str(get_settings().storage_url))
    weights = put_weights(store, save_random_adapter(tiny_model, folder, 11))
    job_id = create_job(client, evaluate=False).id
    model_id = f"ft:{BASE_MODEL}:{job_id}"
    with transaction() as session:
        job = session.get_one(Job, job_id)
        session.add(
            Model(
                id=model_id,
                project_id=job.project_id,
                job_id=job_id,
                base_model=BASE_MODEL,
                adaptation="lora",
                weights_sha256=weights,
                dataset=job.dataset,
                tasks=kept_definitions(load_dataset(store, job.dataset), None),
                trained_tokens=128,
                encoder_version=ENCODER_VERSION,
                template_hash=template_hash(),
            )
        )
    return model_id
