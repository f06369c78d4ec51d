"""The engine's one thread, seen from the event loop."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor

from manyicl_core.inference.engine import Delta, Engine, Generation


class EngineThread:
    """Runs generations one after the other and brings their deltas to whoever awaits them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="engine")

    def close(self) -> None:
        """Take no more work."""
        self._computing.shutdown(wait=False, cancel_futures=True)

    async def deltas(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        """The pieces of an answer; leaving the loop early stops the engine at its next token.

        Raises:
            UnknownAdapter: there are no such weights.
            DoesNotFit: there is no memory for them.
        """
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Delta | Exception | None] = asyncio.Queue()
        cancelled = threading.Event()

        def put(item: Delta | Exception | None) -> None:
            loop.call_soon_threadsafe(arrived.put_nowait, item)

        def compute() -> None:
            if cancelled.is_set():
                return
            try:
                for delta in self._engine.generate(generation, cancelled):
                    put(delta)
                put(None)
            except Exception as error:  # it is raised where the answer is awaited
                put(error)

        self._computing.submit(compute)
        try:
            while (item := await arrived.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            cancelled.set()
