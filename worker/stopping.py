"""Wait for what runs in an event loop, but no longer than the work may go on."""

import asyncio
from collections.abc import Callable, Sequence

_LOOK_SECONDS = 0.2


async def all_done(tasks: Sequence[asyncio.Task[object]], must_stop: Callable[[], bool]) -> bool:
    """Wait for all of ``tasks``; raises what one of them raises. What is left then is cancelled.

    Returns:
        whether all are done; False: it must stop.
    """
    try:
        while not must_stop():
            done, left = await asyncio.wait(tasks, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            if not left:
                return True
        return False
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
