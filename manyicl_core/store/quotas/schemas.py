"""Quotas as the API shows them."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from manyicl_core.request_body import RequestBody
from manyicl_core.store.quotas.service import (
    MOST,
    QUOTAS,
    QuotaName,
    project_quotas,
    queued_jobs,
    running_jobs,
    stored_bytes,
    trained_tokens_today,
)

_Limit = Annotated[int, Field(ge=0, le=MOST)] | None


class SetQuotas(RequestBody):
    """The body that changes a project's quotas: a number, or null for the installation's."""

    stored_bytes: _Limit = None
    queued_jobs: _Limit = None
    running_jobs: _Limit = None
    training_tokens_per_day: _Limit = None
    requests_per_minute: _Limit = None
    tokens_per_minute: _Limit = None

    def changes(self) -> dict[QuotaName, int | None]:
        """What the body names."""
        return {name: getattr(self, name) for name in QUOTAS if name in self.model_fields_set}


class QuotaObject(BaseModel):
    """One quota; ``used`` is null where it counts a minute: ``x-ratelimit-*`` headers tell it."""

    name: QuotaName
    limit: int
    used: int | None


class QuotasObject(BaseModel):
    """A project's quotas."""

    object: Literal["quotas"] = "quotas"
    project_id: str
    data: list[QuotaObject]


def quotas_object(session: Session, project_id: str) -> QuotasObject:
    """A project's quotas, and how much of them is used."""
    used: dict[QuotaName, int] = {
        "stored_bytes": stored_bytes(session, project_id),
        "queued_jobs": queued_jobs(session, project_id),
        "running_jobs": running_jobs(session, project_id),
        "training_tokens_per_day": trained_tokens_today(session, project_id),
    }
    limits = project_quotas(session, project_id)
    data = [QuotaObject(name=name, limit=limit, used=used.get(name)) for name, limit in limits.items()]
    return QuotasObject(project_id=project_id, data=data)
