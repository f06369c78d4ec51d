"""Models as the OpenAI API shows them, with where they come from."""

from typing import Literal

from pydantic import BaseModel


class ModelObject(BaseModel):
    """OpenAI's ``Model``; ``root`` is the base model of a fine-tuned one, as in vLLM.

    ``parent`` is the model that shows a context's demonstrations, where this is a context.
    ``task`` is the one task of a dedicated job's model; ``adaptation`` is ``lora`` or ``full``.
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


class ModelDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True
