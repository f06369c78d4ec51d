"""The database's tables; importing this package registers all of them."""

from manyicl_core.store.tables.api_keys import ApiKey
from manyicl_core.store.tables.audit_logs import AuditLog
from manyicl_core.store.tables.base import Base
from manyicl_core.store.tables.base_model_files import BaseModelFiles
from manyicl_core.store.tables.batches import Batch, BatchChunk
from manyicl_core.store.tables.checkpoints import Checkpoint
from manyicl_core.store.tables.contexts import Context
from manyicl_core.store.tables.creations import Creation
from manyicl_core.store.tables.deleted_rows import DeletedRow
from manyicl_core.store.tables.evaluations import Evaluation, EvaluationCurve, EvaluationResult, PlainText
from manyicl_core.store.tables.events import EvaluationEvent, JobEvent
from manyicl_core.store.tables.files import File
from manyicl_core.store.tables.job_metrics import JobMetrics
from manyicl_core.store.tables.jobs import Job
from manyicl_core.store.tables.leased import Leased
from manyicl_core.store.tables.measurements import Measurement, WantedMeasurement
from manyicl_core.store.tables.model_permissions import ModelPermission
from manyicl_core.store.tables.models import Model
from manyicl_core.store.tables.projects import Project
from manyicl_core.store.tables.quotas import Quota
from manyicl_core.store.tables.uploads import Upload, UploadPart
from manyicl_core.store.tables.usage import Usage
from manyicl_core.store.tables.webhooks import WebhookDelivery, WebhookEndpoint
from manyicl_core.store.tables.workers import Worker

__all__ = [
    "ApiKey",
    "AuditLog",
    "Base",
    "BaseModelFiles",
    "Batch",
    "BatchChunk",
    "Checkpoint",
    "Context",
    "Creation",
    "DeletedRow",
    "Evaluation",
    "EvaluationCurve",
    "EvaluationEvent",
    "EvaluationResult",
    "File",
    "Job",
    "JobEvent",
    "JobMetrics",
    "Leased",
    "Measurement",
    "Model",
    "ModelPermission",
    "PlainText",
    "Project",
    "Quota",
    "Upload",
    "UploadPart",
    "Usage",
    "WantedMeasurement",
    "WebhookDelivery",
    "WebhookEndpoint",
    "Worker",
]
