"""Is the service up, and the parts it stands on."""

from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.dependencies import EngineDep
from manyicl_core.store.session import transaction

router = APIRouter(tags=["health"])


@router.get("/health")
async def health(engine: EngineDep) -> JSONResponse:
    """200 while the database answers; the engine's state is told beside it."""
    database = await run_in_threadpool(_database_answers)
    body: dict[str, Any] = {"database": database, "engine": await engine.healthy()}
    return JSONResponse(body, 200 if database else 503)


def _database_answers() -> bool:
    try:
        with transaction() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return False
    return True
