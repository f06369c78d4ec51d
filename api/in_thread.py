"""Routes that ask the database, in one hop to a thread."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec

from fastapi import Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

Parameters = ParamSpec("Parameters")


def in_thread(endpoint: Callable[Parameters, BaseModel]) -> Callable[Parameters, Awaitable[Response]]:
    """Run ``endpoint`` in a thread, where its answer becomes JSON too.

    FastAPI hops to a thread a second time, to check a model that pydantic has just checked, and writes
    the JSON in the event loop. For the routes that are asked most.
    """

    def answer(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Response:
        return Response(endpoint(*args, **kwargs).model_dump_json(by_alias=True), media_type="application/json")

    # FastAPI reads the parameters and the answer's model off the function that is wrapped.
    @wraps(endpoint)
    async def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Response:
        return await run_in_threadpool(answer, *args, **kwargs)

    return run
