"""The engine's one thread, seen from the event loop."""

import asyncio
import signal
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator
from queue import Empty, SimpleQueue
from statistics import fmean

import structlog
import torch

from manyicl_core.inference.engine import Engine
from manyicl_core.inference.metrics import REFUSED
from manyicl_core.inference.prefix import PrefixKey
from manyicl_core.inference.requests import Delta, Event, Generation, LabelScores, LabelScoring, Overloaded, Refusal
from manyicl_core.inference.tickets import Ticket

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.1
"""Waiting requests may become too late while nothing else happens."""
_SHORTEST_WAIT, _LONGEST_WAIT = 0.1, 30.0


class EngineThread:
    """Runs the engine's steps and brings what it tells to whoever awaits it.

    Should the thread die of a mistake of ours, the process ends, so that whoever watches it starts another.

    Args:
        max_waiting: requests that may wait for a row; the next ones are refused at once. Tenants share them.
        threads: with which torch computes in this thread; None: as it is set.
    """

    def __init__(self, engine: Engine, max_waiting: int, threads: int | None = None) -> None:
        self._engine = engine
        self._max_waiting = max_waiting
        self._threads = threads
        self._inbox: SimpleQueue[Ticket | PrefixKey | None] = SimpleQueue()
        self._listeners: dict[Ticket, asyncio.Queue[Event]] = {}
        # Seconds between the ends of requests, while there were any.
        self._gaps: deque[float] = deque(maxlen=64)
        self._finished_at = 0.0
        self._closing = False
        self._has_died = False
        self._loop: asyncio.AbstractEventLoop | None = None
        engine.wake = lambda: self._inbox.put(None)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin; call it in the event loop that will listen."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        """Stop after the step that is being done."""
        self._closing = True
        self._inbox.put(None)
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether requests can be answered."""
        return not self._has_died

    def admit(self, tenant: str, priority: int) -> None:
        """Take a body of any number of requests, or refuse it as a whole: in parts it would never be answered.

        What is less urgent takes no place, and of many tenants each has its share, however much one sends.

        Raises:
            Overloaded: too many requests wait already.
        """
        waiting = [
            ticket.request.tenant for ticket in self._listeners if ticket.waits and ticket.request.priority <= priority
        ]
        share = self._max_waiting / len({tenant, *waiting})
        if len(waiting) >= self._max_waiting and waiting.count(tenant) >= share:
            REFUSED.labels(Overloaded.code).inc()
            message = f"{len(waiting)} requests wait already; try again in a moment"
            raise Overloaded(message, self._retry_after(len(waiting)))

    def forget(self, key: PrefixKey) -> None:
        """Have the engine keep a context's prefix no longer."""
        self._inbox.put(key)

    async def events(self, request: Generation | LabelScoring) -> AsyncGenerator[Event, None]:
        """What the engine tells of a request until it is complete; leaving early frees its rows at the next step.

        Raises:
            Refusal: the engine does not answer it.
        """
        if self._has_died:
            raise _stopped()
        ticket = Ticket(request)
        came_at = time.monotonic()
        arrived = self._listeners[ticket] = asyncio.Queue()
        self._inbox.put(ticket)
        unfinished = request.n if isinstance(request, Generation) else 1
        try:
            while unfinished:
                event = await arrived.get()
                if isinstance(event, Refusal):
                    REFUSED.labels(event.code).inc()
                    raise event
                unfinished -= isinstance(event, LabelScores) or (isinstance(event, Delta) and bool(event.finish_reason))
                yield event
            now = time.monotonic()
            self._gaps.append(now - max(self._finished_at, came_at))
            self._finished_at = now
        finally:
            ticket.cancelled = True
            del self._listeners[ticket]

    def _retry_after(self, waiting: int) -> float:
        """Seconds until the queue may be empty, as fast as it lately went."""
        if not self._gaps:
            return 1.0
        return min(max(waiting * fmean(self._gaps), _SHORTEST_WAIT), _LONGEST_WAIT)

    def _run(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        try:
            self._repeat()
        except Exception:
            _log.exception("engine_thread_died")
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._give_up)

    def _give_up(self) -> None:
        """Tell all who wait; the process has to be started anew."""
        self._has_died = True
        self._deliver([(ticket, _stopped()) for ticket in self._listeners])
        signal.raise_signal(signal.SIGTERM)

    def _repeat(self) -> None:
        worked = False
        while not self._closing:
            self._read_inbox(wait=not worked)
            worked, told = self._engine.step()
            if told:
                assert self._loop is not None
                self._loop.call_soon_threadsafe(self._deliver, told)

    def _read_inbox(self, wait: bool) -> None:
        try:
            item = self._inbox.get(wait, _LOOK_SECONDS if self._engine.waiting else None)
            while True:
                if isinstance(item, Ticket):
                    self._engine.submit(item)
                elif item is not None:
                    self._engine.forget(item)
                item = self._inbox.get_nowait()
        except Empty:
            return

    def _deliver(self, told: list[tuple[Ticket, Event]]) -> None:
        for ticket, event in told:
            if ticket in self._listeners:
                self._listeners[ticket].put_nowait(event)


def _stopped() -> Refusal:
    return Refusal("the engine stopped; its log has the story")
