"""The database's tables, one a file; importing this package registers all of them."""

from manyicl_core.store.tables.api_keys import ApiKey
from manyicl_core.store.tables.base import Base
from manyicl_core.store.tables.checkpoints import Checkpoint
from manyicl_core.store.tables.files import File
from manyicl_core.store.tables.job_events import JobEvent
from manyicl_core.store.tables.job_metrics import JobMetrics
from manyicl_core.store.tables.job_results import JobResult
from manyicl_core.store.tables.jobs import Job
from manyicl_core.store.tables.measurements import Measurement
from manyicl_core.store.tables.models import Model
from manyicl_core.store.tables.projects import Project

__all__ = [
    "ApiKey",
    "Base",
    "Checkpoint",
    "File",
    "Job",
    "JobEvent",
    "JobMetrics",
    "JobResult",
    "Measurement",
    "Model",
    "Project",
]
