"""The least that an api can do: FastAPI routes with one SELECT over our connection pool."""

from typing import Annotated

from fastapi import FastAPI, Form, UploadFile
from sqlalchemy import text

from manyicl_core.store.engine import get_engine

app = FastAPI()

_SELECT = text("SELECT id, state FROM jobs WHERE id = :id")


@app.get("/jobs/{job_id}")
def get_job(job_id: str) -> dict[str, str]:
    """Two columns of one row."""
    with get_engine().connect() as connection:
        row = connection.execute(_SELECT, {"id": job_id}).one()
    return {"id": row.id, "state": row.state}


@app.post("/files/{job_id}")
def post_file(job_id: str, file: UploadFile, purpose: Annotated[str, Form()]) -> dict[str, str]:
    """The same, behind the body of an upload."""
    return {**get_job(job_id), "purpose": purpose, "bytes": str(len(file.file.read()))}
