"""Work for a client that may leave: nobody computes an answer that nobody waits for."""

import asyncio
import math
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from manyicl_core.errors import DeadlineExceeded

Result = TypeVar("Result")


async def unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """The result of ``work``, which is cancelled when the client has gone, or says that it waits no longer.

    Cancelled work closes its connection to the engine, and the engine frees its rows. The body of
    ``request`` has been read: what comes next from the client is only its end.

    Raises:
        ClientDisconnect: the client has gone.
        DeadlineExceeded: the ``openai`` client told how long it waits, and that is over. It need
            not be seen to leave: a proxy may keep the connection.
    """
    seconds = patience(request)
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if gone.done():
            raise ClientDisconnect
        raise DeadlineExceeded(
            f"The answer was not complete in the {seconds:g} seconds that the client waits "
            "(x-stainless-read-timeout); stream it, or give the client a longer timeout",
            code="deadline_exceeded",
        )
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


def patience(request: Request) -> float | None:
    """Seconds that the client waits for an answer; None: it does not say."""
    try:
        seconds = float(request.headers["x-stainless-read-timeout"])
    except (KeyError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
