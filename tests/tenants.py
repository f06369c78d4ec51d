"""A project with one of everything, and keys that open parts of it or nothing."""

from dataclasses import dataclass
from typing import Any, cast

from openai import OpenAI
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from manyicl_core.ids import new_id
from manyicl_core.method.encoding import ENCODER_VERSION, template_hash
from manyicl_core.method.tasks import TaskDefinition
from manyicl_core.store.models.task_ids import task_model_id
from manyicl_core.store.projects.schemas import SCOPES
from manyicl_core.store.projects.service import authenticate, create_key, get_or_create_project
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import (
    ApiKey,
    AuditLog,
    Checkpoint,
    EvaluationEvent,
    Job,
    JobEvent,
    JobMetrics,
    Model,
    ModelPermission,
    Project,
    WebhookDelivery,
)
from tests.batches import create_batch, request
from tests.contexts import PASTED, create_context
from tests.evaluations import create_evaluation
from tests.jobs import TASKS, create_job, example_lines, upload
from tests.keys import ALL_BUT_OPERATOR, client_of
from tests.services import BASE_MODEL


@dataclass(frozen=True)
class Tenant:
    """A project.

    Attributes:
        key: opens all of it; it is no operator's.
        keys_without: for each scope, a key with all others.
        dead_keys: opened it once.
        ids: one of everything; path parameters are among the names.
    """

    key: str
    keys_without: dict[str, str]
    dead_keys: list[str]
    ids: dict[str, str]


def make_tenant(installation: str) -> Tenant:
    """A new project, with one of everything made over the API, or in the tables where that takes a worker."""
    with transaction() as session:
        project = get_or_create_project(session, new_id("p"))
        key = create_key(session, project, ALL_BUT_OPERATOR)
        keys_without = {scope: create_key(session, project, set(SCOPES) - {scope}) for scope in SCOPES}
        spare = authenticate(session, create_key(session, project)).key_id
        dead_keys = [_revoked_key(session, project), _key_of_an_archived_project(session)]
    with client_of(installation, key) as client:
        ids = {"project_id": project.id, "api_key_id": spare} | _made_over_the_api(client)
    with transaction() as session:
        return Tenant(key, keys_without, dead_keys, ids | _found_in_the_tables(session, ids))


def _revoked_key(session: Session, project: Project) -> str:
    key = create_key(session, project, SCOPES)
    revoked = ApiKey.id == authenticate(session, key).key_id
    session.execute(update(ApiKey).where(revoked).values(revoked_at=func.now()))
    return key


def _key_of_an_archived_project(session: Session) -> str:
    project = get_or_create_project(session, new_id("p"))
    project.archived_at = session.scalar(select(func.now()))
    return create_key(session, project, SCOPES)


def _made_over_the_api(client: OpenAI) -> dict[str, str]:
    training = upload(client, example_lines(0, 12))
    validation = upload(client, example_lines(100, 4))
    evaluation = create_evaluation(
        client, model=BASE_MODEL, training_file=training, validation_file=validation, task_definitions=TASKS
    )
    batch = create_batch(client, [request("a")])
    sent = client.uploads.create(bytes=2, filename="a", mime_type="application/jsonl", purpose="user_data")
    hook = {"name": "x", "url": "https://example.org/x", "event_types": ["batch.failed"]}
    endpoint = cast(dict[str, Any], client.post("/webhook_endpoints", body=hook, cast_to=object))
    return {
        "file_id": training,
        "validation_file": validation,
        "batch_file": batch.input_file_id,
        "job_id": create_job(client).id,
        "evaluation_id": evaluation["id"],
        "context_id": create_context(client, **PASTED)["id"],
        "batch_id": batch.id,
        "upload_id": sent.id,
        "endpoint_id": str(endpoint["id"]),
        "part": client.uploads.parts.create(sent.id, data=b"x").id,
    }


def _found_in_the_tables(session: Session, ids: dict[str, str]) -> dict[str, str]:
    project_id, job_id = ids["project_id"], ids["job_id"]
    job = session.get_one(Job, job_id)
    weights = new_id("")
    model = Model(
        id=f"ft:{BASE_MODEL}:{project_id}::{new_id('')}",
        project_id=project_id,
        job_id=job_id,
        base_model=BASE_MODEL,
        adaptation="lora",
        weights_sha256=weights,
        dataset=job.dataset,
        tasks=[TaskDefinition(name="sum").model_dump()],
        trained_tokens=128,
        encoder_version=ENCODER_VERSION,
        template_hash=template_hash(),
    )
    checkpoint = Checkpoint(
        job_id=job_id, step=1, id=new_id("ftckpt_"), weights_sha256=weights, best=True, final=True, files=[]
    )
    metrics = JobMetrics(job_id=job_id, step=1, values={"step": 1, "train_loss": 1.0})
    friend = get_or_create_project(session, new_id("p"))
    permission = ModelPermission(id=new_id("cp_"), model_id=model.id, project_id=friend.id)
    delivery = WebhookDelivery(
        id=new_id("whd_"),
        endpoint_id=ids["endpoint_id"],
        event_id=new_id("evt_"),
        event_type="batch.failed",
        body="{}",
        next_attempt_at=None,
    )
    session.add_all([model, checkpoint, metrics])
    session.flush()
    session.add_all([permission, delivery])
    session.flush()
    stories = {
        "job_event": select(JobEvent.id).where(JobEvent.job_id == job_id),
        "evaluation_event": select(EvaluationEvent.id).where(EvaluationEvent.evaluation_id == ids["evaluation_id"]),
        "audit_log": select(AuditLog.id).where(AuditLog.project_id == project_id),
    }
    found = {name: session.scalars(query.limit(1)).one() for name, query in stories.items()}
    made = {
        "model": model.id,
        "task_model": task_model_id(model.id, "sum"),
        "checkpoint": checkpoint.id,
        "permission_id": permission.id,
        "delivery": delivery.id,
        "artifact": "README.md",
    }
    return made | found
