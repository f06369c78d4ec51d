"""What can be downloaded of a fine-tuned model: adapter, merged model, zips of both, model card."""

from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from api.dependencies import ArtifactsDep, ReaderDep
from api.routes.lists import ListObject, list_object
from manyicl_core.store.jobs import artifacts as service
from manyicl_core.store.jobs.artifacts import ArtifactObject
from manyicl_core.store.session import transaction

router = APIRouter(prefix="/models", tags=["models"])


@router.get("/{model:path}/artifacts")
def list_artifacts(caller: ReaderDep, model: str) -> ListObject[ArtifactObject]:
    """The files that there are of a model that the project made."""
    with transaction() as session:
        return list_object(service.list_artifacts(session, caller.project_id, model))


@router.get(
    "/{model:path}/artifacts/{artifact}",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
)
def download_artifact(caller: ReaderDep, artifacts: ArtifactsDep, model: str, artifact: str) -> StreamingResponse:
    """One file, made while it is sent; ``content-length`` is there where it is known before."""
    with transaction() as session:
        found = service.open_artifact(session, artifacts, caller.project_id, model, artifact)
    name = f"{model.rpartition(':')[2]}-{found.name}"
    headers = {"content-disposition": f"attachment; filename*=utf-8''{quote(name, safe='')}"}
    if found.bytes is not None:
        headers["content-length"] = str(found.bytes)
    return StreamingResponse(found.content, media_type=found.media_type, headers=headers)
