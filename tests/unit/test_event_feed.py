import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from api import event_feed
from api.event_feed import Chunk, EventFeed, Reader
from manyicl_core.store.events import NewEvent, News


class Line(BaseModel):
    text: str


class Stories:
    """Events in memory in the place of the database; keeps what each look asked for.

    A look finds ``at_once`` events of a story. It ends as long as ``ends`` is set, and otherwise when it is.
    """

    def __init__(self) -> None:
        self.events: dict[str, list[NewEvent]] = {}
        self.over: set[str] = set()
        self.looks: list[dict[str, int]] = []
        self.away = 0
        self.at_once = 3
        self.ends = threading.Event()
        self.ends.set()

    def add(self, story: str, number: int) -> None:
        text = f"{story}{number}"
        self.events.setdefault(story, []).append(NewEvent(number, text, Line(text=text)))

    def find(self, _: Session, told: Mapping[str, int]) -> dict[str, News]:
        self.looks.append(dict(told))
        if self.away:
            self.away -= 1
            raise OperationalError("SELECT", {}, Exception("the database is away"))
        found = {}
        for story, number in told.items():
            newer = [event for event in self.events.get(story, []) if event.number > number]
            new, more = newer[: self.at_once], len(newer) >= self.at_once
            if new or story in self.over:
                found[story] = News(new, story in self.over and not more, more)
        assert self.ends.wait(30)
        return found


@pytest.fixture
def stories(monkeypatch: pytest.MonkeyPatch) -> Stories:
    @contextmanager
    def no_transaction() -> Iterator[None]:
        yield

    monkeypatch.setattr(event_feed, "transaction", no_transaction)
    monkeypatch.setattr(event_feed, "_PAUSE_SECONDS", 0.01)
    return Stories()


async def heard(reader: Reader) -> list[str]:
    """The ids of the events of the next chunk, and ``over`` where it is the last."""
    return told(await reader.waiting.get())


def told(chunk: Chunk) -> list[str]:
    ids = [line.removeprefix("id: ") for line in chunk.messages.decode().splitlines() if line.startswith("id: ")]
    return [*ids, "over"] if chunk.over else ids


def test_each_reader_hears_its_own_story_from_its_own_place_and_one_look_serves_all(stories: Stories) -> None:
    for number in (1, 2, 4):
        stories.add("a", number)
    stories.add("b", 3)

    async def follow() -> None:
        feed = EventFeed(stories.find)
        first, second, other = Reader(0), Reader(2), Reader(3)
        with feed.following("a", first), feed.following("a", second), feed.following("b", other):
            assert await heard(first) == ["a1", "a2", "a4"]
            assert await heard(second) == ["a4"]
            assert other.waiting.empty()
            stories.add("b", 5)
            assert await heard(other) == ["b5"]
            stories.over.add("a")
            assert await heard(first) == await heard(second) == ["over"]
        asked = len(stories.looks)
        await asyncio.sleep(0.05)
        assert len(stories.looks) <= asked + 1, "nobody follows, so nobody looks"

    asyncio.run(follow())
    assert stories.looks[0] == {"a": 0, "b": 3}
    assert {"a": 4, "b": 3} in stories.looks


def test_readers_go_on_after_the_database_was_away(stories: Stories) -> None:
    stories.add("a", 1)
    stories.away = 2

    async def follow() -> list[str]:
        feed, reader = EventFeed(stories.find), Reader(0)
        assert [chunk async for chunk in feed.missed("a", reader)] == []
        with feed.following("a", reader):
            return await heard(reader)

    assert asyncio.run(follow()) == ["a1"]
    assert len(stories.looks) == 3


def test_who_opens_an_old_story_reads_it_by_pages_and_stops_no_other(stories: Stories) -> None:
    for number in range(1, 8):
        stories.add("a", number)

    async def follow() -> None:
        feed, live, newcomer = EventFeed(stories.find), Reader(7), Reader(0)
        with feed.following("a", live):
            pages = feed.missed("a", newcomer)
            assert told(await anext(pages)) == ["a1", "a2", "a3"]
            stories.add("a", 8)
            assert await heard(live) == ["a8"]
            assert [told(page) async for page in pages] == [["a4", "a5", "a6"], ["a7", "a8"]]
            stories.over.add("a")
            with feed.following("a", newcomer):
                assert await heard(live) == await heard(newcomer) == ["over"]
        assert [told(page) async for page in feed.missed("a", Reader(7))] == [["a8", "over"]]

    asyncio.run(follow())


def test_many_new_events_come_without_a_pause(stories: Stories, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feed, "_PAUSE_SECONDS", 600)
    for number in range(1, 8):
        stories.add("a", number)

    async def follow() -> None:
        feed, reader = EventFeed(stories.find), Reader(0)
        with feed.following("a", reader):
            assert [await heard(reader) for _ in range(3)] == [["a1", "a2", "a3"], ["a4", "a5", "a6"], ["a7"]]

    asyncio.run(follow())


def test_who_joins_during_a_look_loses_nothing(stories: Stories) -> None:
    for number in (1, 2):
        stories.add("a", number)

    async def follow() -> None:
        feed, first, late = EventFeed(stories.find), Reader(1), Reader(0)
        stories.ends.clear()
        with feed.following("a", first):
            while not stories.looks:
                await asyncio.sleep(0)
            with feed.following("a", late):
                stories.ends.set()
                assert await heard(first) == ["a2"]
                assert await heard(late) == ["a1", "a2"]

    asyncio.run(follow())


def test_who_does_not_read_is_let_go_of_and_the_others_are_served(
    stories: Stories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "_MOST_WAITING", 2)

    async def follow() -> None:
        feed, slow, quick = EventFeed(stories.find), Reader(0), Reader(0)
        with feed.following("a", slow), feed.following("a", quick):
            for number in range(1, 5):
                stories.add("a", number)
                assert await heard(quick) == [f"a{number}"]
            assert slow.cut
            assert slow.waiting.qsize() == 2

    asyncio.run(follow())
