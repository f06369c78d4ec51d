"""Waiting requests: of the urgent ones first, and among tenants by what each has used (fair queueing)."""

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Generic, TypeVar

Item = TypeVar("Item")

_MOST_PASSED_BY = 32
"""Of a tenant's: asking each of thousands would hold up everybody."""


class Start(Enum):
    """How an item took its turn.

    Attributes:
        BEGUN: it waits no more.
        UNREADY: what it needs comes by itself; meanwhile its tenant's next one may have the turn.
        FULL: there is no room for it, nor for what is behind it.
    """

    BEGUN = auto()
    UNREADY = auto()
    FULL = auto()


class FairQueue(Generic[Item]):
    """Who has used least is next; a tenant that comes back has saved nothing up.

    Self-clocked fair queueing (Golestani 1994) with the work counted as it is done.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, str], deque[Item]] = {}
        self._used: dict[str, float] = {}
        self._clock = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def push(self, item: Item, tenant: str, priority: int) -> None:
        """Wait, behind the tenant's others of the same priority."""
        if not any(waits for _, waits in self._waiting if waits == tenant):
            self._used[tenant] = max(self._used.get(tenant, 0.0), self._clock)
        self._waiting.setdefault((priority, tenant), deque()).append(item)

    def offer(self, start: Callable[[Item], Start]) -> None:
        """Offer all of them their turn; those that begin leave."""
        for place in sorted(self._waiting, key=lambda place: self.order(place[1], place[0])):
            passed_by = 0
            for item in list(self._waiting[place]):
                started = start(item)
                if started is Start.BEGUN:
                    self._clock = self._used[place[1]]
                    self._take(place, item)
                passed_by += started is Start.UNREADY
                if started is Start.FULL or passed_by == _MOST_PASSED_BY:
                    break

    def remove(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Take out all that is not wanted any more."""
        removed = [(place, item) for place, queue in self._waiting.items() for item in queue if unwanted(item)]
        for place, item in removed:
            self._take(place, item)
        return [item for _, item in removed]

    def order(self, tenant: str, priority: int) -> tuple[int, float]:
        """By what its turn comes, the least first."""
        return priority, self._used[tenant]

    def has_used_least(self, tenant: str, others: Iterable[str]) -> bool:
        """Whether none of the others has used less."""
        return all(self._used[tenant] <= self._used[other] for other in others)

    def charge(self, tenant: str, work: float) -> None:
        """Count work that was done for a tenant."""
        self._used[tenant] = self._used.get(tenant, self._clock) + work

    def _take(self, place: tuple[int, str], item: Item) -> None:
        self._waiting[place].remove(item)
        if not self._waiting[place]:
            del self._waiting[place]
