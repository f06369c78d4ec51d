"""Is the service up, and the parts it stands on."""

from http import HTTPStatus

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.dependencies import EngineDep
from manyicl_core.store.session import transaction

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """Whether each part answers."""

    database: bool
    engine: bool


@router.get("/health", responses={HTTPStatus.SERVICE_UNAVAILABLE: {"model": Health}})
async def health(engine: EngineDep, response: Response) -> Health:
    """200 while the database answers; the engine's state is told beside it."""
    database = await run_in_threadpool(_database_answers)
    if not database:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Health(database=database, engine=await engine.healthy())


def _database_answers() -> bool:
    try:
        with transaction() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return False
    return True
