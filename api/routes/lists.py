"""OpenAI's list bodies."""

from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel

from manyicl_core.store.batches.schemas import BatchObject
from manyicl_core.store.contexts.context_object import ContextObject
from manyicl_core.store.evaluations.schemas import EvaluationEventObject, EvaluationObject
from manyicl_core.store.files.schemas import FileObject
from manyicl_core.store.jobs.artifacts import ArtifactObject
from manyicl_core.store.jobs.metrics import MetricsObject
from manyicl_core.store.jobs.schemas import CheckpointObject, EventObject, JobObject
from manyicl_core.store.models.schemas import ModelObject, PermissionObject
from manyicl_core.store.projects.audit import AuditLogObject
from manyicl_core.store.projects.schemas import KeyObject, ProjectObject
from manyicl_core.store.uploads.schemas import PartObject, UploadObject
from manyicl_core.store.webhooks.schemas import DeliveryObject, WebhookEndpointObject

Item = TypeVar(
    "Item",
    FileObject,
    JobObject,
    EventObject,
    CheckpointObject,
    MetricsObject,
    ModelObject,
    EvaluationObject,
    EvaluationEventObject,
    ContextObject,
    BatchObject,
    UploadObject,
    PartObject,
    PermissionObject,
    ArtifactObject,
    WebhookEndpointObject,
    DeliveryObject,
    ProjectObject,
    KeyObject,
    AuditLogObject,
)


class ListObject(BaseModel, Generic[Item]):
    """A page; the client goes on with ``after=last_id`` while ``has_more``."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool
    first_id: str | None
    last_id: str | None


def list_object(items: Sequence[Item], has_more: bool = False) -> ListObject[Item]:
    """Items as a page."""
    ids = [item.id for item in items]
    return ListObject(
        data=list(items),
        has_more=has_more,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
    )
