"""Models as the OpenAI API shows them, with where they come from."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from manyicl_core.request_body import RequestBody
from manyicl_core.store.tables import ModelPermission


class ManyiclModel(BaseModel):
    """What a task is that is a model of its own, as its job defines it."""

    instruction: str
    labels: list[str] | None
    metric: str
    role: str


class ModelObject(BaseModel):
    """OpenAI's ``Model``; ``root`` is the base model of a fine-tuned one, as in vLLM.

    ``parent`` is the model that answers, where this is a context or a task, and ``task`` that task's
    name, or the one task of a dedicated job's model; ``adaptation`` is ``lora`` or ``full``. Of a model
    that another project shares, neither its job nor its weights are told. A task has ``manyicl``.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    root: str | None = None
    parent: str | None = None
    job: str | None = None
    task: str | None = None
    adaptation: str | None = None
    weights_sha256: str | None = None
    manyicl: ManyiclModel | None = None


class ModelDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


class CreatePermissions(RequestBody):
    """The body of ``POST /v1/fine_tuning/checkpoints/{model}/permissions``."""

    project_ids: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64)]], Field(min_length=1, max_length=100)
    ]


class PermissionObject(BaseModel):
    """OpenAI's ``checkpoint.permission``: the project may call the model."""

    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    created_at: int
    project_id: str


class PermissionDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    deleted: Literal[True] = True


def permission_object(row: ModelPermission) -> PermissionObject:
    """A row as the API shows it."""
    return PermissionObject(id=row.id, created_at=int(row.created_at.timestamp()), project_id=row.project_id)
