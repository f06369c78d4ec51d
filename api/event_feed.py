"""One look at the database for all who follow stories: what is new goes to everybody at once.

A thousand open streams cost as many queries as one, and an event becomes bytes once, however many
read it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import format_sse_event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from manyicl_core.store.events import NewEvent, News
from manyicl_core.store.session import transaction

_PAUSE_SECONDS = 0.25
_SHORTEST_PAUSE_SECONDS = 0.05
_MOST_WAITING = 1000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Messages to send at once; after one that is ``over`` comes nothing more."""

    messages: bytes
    over: bool


@dataclass(eq=False, slots=True)
class Reader:
    """One open stream: what waits to be sent to it, and the number of the last event that it was given.

    ``cut`` when so much waits that it does not read any more; it may come back and go on.
    """

    told: int
    waiting: asyncio.Queue[Chunk] = field(default_factory=lambda: asyncio.Queue(_MOST_WAITING))
    cut: bool = False


class EventFeed:
    """Looks for news of all stories that somebody follows, as long as somebody does.

    Args:
        find: what is new in stories, by their subjects' ids, after the given events.
    """

    def __init__(self, find: Callable[[Session, Mapping[str, int]], dict[str, News]]) -> None:
        self._find = find
        self._readers: dict[str, set[Reader]] = defaultdict(set)
        self._newcomer = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def following(self, subject_id: str, after: int) -> Iterator[Reader]:
        """Follow a story from behind the event with the number ``after``, or from its beginning (0)."""
        reader = Reader(after)
        self._readers[subject_id].add(reader)
        self._newcomer.set()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on())
        try:
            yield reader
        finally:
            self._leave(subject_id, reader)

    async def _look_on(self) -> None:
        while self._readers:
            self._newcomer.clear()
            told = {id_: min(reader.told for reader in readers) for id_, readers in self._readers.items()}
            try:
                news = await run_in_threadpool(self._look, told)
            except SQLAlchemyError as error:
                _log.warning("database_away", reason=str(error).splitlines()[0])
            except Exception:
                # Whatever it was, the next look may do better; without looks, every stream stands still.
                _log.exception("look_failed")
            else:
                for id_, new in news.items():
                    self._tell(id_, new)
            await asyncio.sleep(_SHORTEST_PAUSE_SECONDS)
            try:
                async with asyncio.timeout(_PAUSE_SECONDS - _SHORTEST_PAUSE_SECONDS):
                    await self._newcomer.wait()
            except TimeoutError:
                continue

    def _look(self, told: Mapping[str, int]) -> dict[str, News]:
        with transaction() as session:
            return self._find(session, told)

    def _tell(self, id_: str, news: News) -> None:
        messages = [_message(event) for event in news.events]
        for reader in tuple(self._readers.get(id_, ())):
            new = [message for event, message in zip(news.events, messages, strict=True) if event.number > reader.told]
            if not new and not news.over:
                continue
            if reader.waiting.full():
                reader.cut = True
                self._leave(id_, reader)
                continue
            reader.waiting.put_nowait(Chunk(b"".join(new), news.over))
            if news.events:
                reader.told = max(reader.told, news.events[-1].number)

    def _leave(self, subject_id: str, reader: Reader) -> None:
        self._readers[subject_id].discard(reader)
        if not self._readers[subject_id]:
            del self._readers[subject_id]


def _message(event: NewEvent) -> bytes:
    return format_sse_event(data_str=event.shown.model_dump_json(), id=event.id)
