"""Classifications: many inputs at once over the labels of a task or context."""

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from api.dependencies import ArtifactsDep, InferenceDep
from api.disconnect import patience, unless_gone
from api.metered_engine import MeteredEngineDep
from manyicl_core.answers.classifications import CreateClassification, answer_classification, classification_call
from manyicl_core.answers.objects import ClassificationList

_SHORT_PATIENCE_SECONDS = 30.0

router = APIRouter(prefix="/classifications", tags=["classifications"])


@router.post("")
async def create_classification(
    request: Request,
    caller: InferenceDep,
    artifacts: ArtifactsDep,
    engine: MeteredEngineDep,
    body: CreateClassification,
) -> ClassificationList:
    """Label every input, with the probability of each label."""
    call = await run_in_threadpool(classification_call, caller.project_id, artifacts, body)
    wait_seconds = patience(request) or _SHORT_PATIENCE_SECONDS
    return await unless_gone(request, answer_classification(engine, call, body, wait_seconds))
