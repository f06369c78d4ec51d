"""One look at the database for all who follow stories: what is new goes to everybody at once.

A thousand open streams cost as many queries as one, and an event becomes bytes once, however many
read it. Only what had happened before a stream was opened is looked for by itself.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import format_sse_event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from manyicl_core.store.events import News
from manyicl_core.store.session import transaction

_PAUSE_SECONDS = 0.25
_MOST_WAITING = 1000
_NO_NEWS = News([], over=False, more=False)

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

    def take(self, messages: Sequence[tuple[int, bytes]], over: bool) -> Chunk | None:
        """Those of the numbered messages that it was not given yet; None: there are none, and it is not over."""
        new = [message for number, message in messages if number > self.told]
        if messages:
            self.told = max(self.told, messages[-1][0])
        return Chunk(b"".join(new), over) if new or over else None


class EventFeed:
    """Looks for news of all stories that somebody follows, as long as somebody does.

    Args:
        find: what is new in stories, by their subjects' ids, after the given events.
    """

    def __init__(self, find: Callable[[Session, Mapping[str, int]], dict[str, News]]) -> None:
        self._find = find
        self._readers: dict[str, set[Reader]] = defaultdict(set)
        self._looking: asyncio.Task[None] | None = None

    async def missed(self, subject_id: str, reader: Reader) -> AsyncIterator[Chunk]:
        """What a reader has missed of a story so far, looked for by pages and for it alone: nobody waits for it."""
        more = True
        while more:
            try:
                found = await run_in_threadpool(self._look, {subject_id: reader.told})
            except SQLAlchemyError as error:
                _warn(error)
                return  # the common look goes on from here
            news = found.get(subject_id, _NO_NEWS)
            more = news.more
            if chunk := reader.take(_messages(news), news.over):
                yield chunk

    @contextmanager
    def following(self, subject_id: str, reader: Reader) -> Iterator[None]:
        """Let a reader hear of a story with all others who follow it, once it has heard what it had missed."""
        self._readers[subject_id].add(reader)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on())
        try:
            yield
        finally:
            self._leave(subject_id, reader)

    async def _look_on(self) -> None:
        while self._readers:
            # Who joins during the look may lack what this one does not look for.
            asked = {id_: tuple(readers) for id_, readers in self._readers.items()}
            told = {id_: min(reader.told for reader in readers) for id_, readers in asked.items()}
            more = False
            try:
                news = await run_in_threadpool(self._look, told)
            except SQLAlchemyError as error:
                _warn(error)
            except Exception:
                # Whatever it was, the next look may do better; without looks, every stream stands still.
                _log.exception("look_failed")
            else:
                for id_, new in news.items():
                    self._tell(id_, asked[id_], new)
                more = any(new.more for new in news.values())
            if not more:
                await asyncio.sleep(_PAUSE_SECONDS)

    def _look(self, told: Mapping[str, int]) -> dict[str, News]:
        with transaction() as session:
            return self._find(session, told)

    def _tell(self, id_: str, readers: Iterable[Reader], news: News) -> None:
        messages = _messages(news)
        for reader in readers:
            chunk = reader.take(messages, news.over)
            if chunk is None:
                continue
            if reader.waiting.full():
                reader.cut = True
                self._leave(id_, reader)
                continue
            reader.waiting.put_nowait(chunk)

    def _leave(self, subject_id: str, reader: Reader) -> None:
        self._readers[subject_id].discard(reader)
        if not self._readers[subject_id]:
            del self._readers[subject_id]


def _messages(news: News) -> list[tuple[int, bytes]]:
    """Each event's number, and what is sent of it."""
    return [
        (event.number, format_sse_event(data_str=event.shown.model_dump_json(), id=event.id)) for event in news.events
    ]


def _warn(error: SQLAlchemyError) -> None:
    _log.warning("database_away", reason=str(error).splitlines()[0])
