import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from api import event_feed
from api.event_feed import EventFeed, Reader
from manyicl_core.store.events import NewEvent, News


class Line(BaseModel):
    text: str


class Stories:
    """Events in memory in the place of the database; keeps what each look asked for."""

    def __init__(self) -> None:
        self.events: dict[str, list[NewEvent]] = {}
        self.over: set[str] = set()
        self.looks: list[dict[str, int]] = []
        self.away = 0

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
            new = [event for event in self.events.get(story, []) if event.number > number]
            if new or story in self.over:
                found[story] = News(new, story in self.over)
        return found


@pytest.fixture
def stories(monkeypatch: pytest.MonkeyPatch) -> Stories:
    @contextmanager
    def no_transaction() -> Iterator[None]:
        yield

    monkeypatch.setattr(event_feed, "transaction", no_transaction)
    monkeypatch.setattr(event_feed, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(event_feed, "_SHORTEST_PAUSE_SECONDS", 0.001)
    return Stories()


async def heard(reader: Reader) -> list[str]:
    """The ids of the events of the next chunk, and ``over`` where it is the last."""
    chunk = await reader.waiting.get()
    ids = [line.removeprefix("id: ") for line in chunk.messages.decode().splitlines() if line.startswith("id: ")]
    return [*ids, "over"] if chunk.over else ids


def test_each_reader_hears_its_own_story_from_its_own_place_and_one_look_serves_all(stories: Stories) -> None:
    for number in (1, 2, 4):
        stories.add("a", number)
    stories.add("b", 3)

    async def follow() -> None:
        feed = EventFeed(stories.find)
        with feed.following("a", 0) as first, feed.following("a", 2) as second, feed.following("b", 3) as other:
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
        with EventFeed(stories.find).following("a", 0) as reader:
            return await heard(reader)

    assert asyncio.run(follow()) == ["a1"]
    assert len(stories.looks) == 3


def test_who_does_not_read_is_let_go_of_and_the_others_are_served(
    stories: Stories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "_MOST_WAITING", 2)

    async def follow() -> None:
        feed = EventFeed(stories.find)
        with feed.following("a", 0) as slow, feed.following("a", 0) as quick:
            for number in range(1, 5):
                stories.add("a", number)
                assert await heard(quick) == [f"a{number}"]
            assert slow.cut
            assert slow.waiting.qsize() == 2

    asyncio.run(follow())
