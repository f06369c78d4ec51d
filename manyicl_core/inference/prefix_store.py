"""Compiled prefixes: in memory within a budget, least recently used out first, with copies on disk."""

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

import structlog

from manyicl_core.inference.metrics import PREFIX_BYTES, PREFIX_EVICTIONS, PREFIX_LOOKUPS
from manyicl_core.inference.prefix import EMPTY_PREFIX, Prefix, PrefixKey
from manyicl_core.inference.prefix_files import PrefixFiles

_MOST_READ = 2
_READ_SECONDS = 0.025
"""A file that the system has in memory is read in half of it; a pass may take ten times as long."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Entry:
    prefix: Prefix
    holders: int = 0
    is_unwanted: bool = False
    source: str = "memory"


@dataclass(slots=True)
class _Coming:
    """What is being read from the disk, in room that is set aside."""

    reading: Future[Prefix | None]
    size_bytes: int
    awaited_until: float
    is_unwanted: bool = False


class PrefixStore:
    """Prefixes by key. One that is held stays; the budget bounds all of them, those being made included.

    Args:
        eight_bits: keep them in half the memory, a little less exact.
    """

    def __init__(self, budget_bytes: int, files: PrefixFiles | None = None, eight_bits: bool = False) -> None:
        self._budget = budget_bytes
        self._files = files
        self._eight_bits = eight_bits
        self._entries: OrderedDict[PrefixKey, _Entry] = OrderedDict()
        self._coming: dict[PrefixKey, _Coming] = {}
        self._bytes = 0

    @property
    def budget_bytes(self) -> int:
        """The most memory that prefixes take."""
        return self._budget

    @property
    def size_bytes(self) -> int:
        """Memory in use or set aside."""
        return self._bytes

    def __contains__(self, key: PrefixKey) -> bool:
        return key in self._entries

    def has(self, key: PrefixKey) -> bool:
        """Whether the prefix is in memory, on the disk or on its way."""
        is_read = key in self._entries or key in self._coming
        return is_read or (self._files is not None and self._files.size_bytes(key) is not None)

    def comes(self, key: PrefixKey, when_read: Callable[[], None]) -> bool:
        """Whether the prefix is on its way from the disk, which begins now if it is there and nowhere else.

        Args:
            when_read: called, in another thread, when it is worth asking again.
        """
        if key in self._entries:
            return False
        if key not in self._coming:
            return self._begins_to_come(key, when_read)
        if self._coming[key].reading.done():
            self._arrive(key)
        return key in self._coming

    def start_comes(self, key: PrefixKey, when_read: Callable[[], None]) -> bool:
        """Whether what the prefix can go on from is on its way from the disk, if that is longer than any in memory."""
        if self._files is None:
            return False
        start = next(self._files.starts(key), None)
        if start is None or len(start.tokens) <= len(self.longest_start(key).tokens):
            return False
        return self.comes(start, when_read)

    def await_one(self) -> bool:
        """Wait a moment for what has just begun to be read; whether anything has come.

        Whoever needs it would miss the pass that is about to begin. A slow disk holds up one pass, not each.
        """
        now = time.monotonic()
        young = [coming for coming in self._coming.values() if coming.awaited_until > now]
        if young:
            wait(
                [coming.reading for coming in young],
                max(coming.awaited_until for coming in young) - now,
                FIRST_COMPLETED,
            )
        return self._arrive_all()

    def hold(self, key: PrefixKey) -> Prefix | None:
        """The prefix if it is in memory; it stays until it is released."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        PREFIX_LOOKUPS.labels(entry.source).inc()
        entry.source = "memory"
        entry.holders += 1
        self._entries.move_to_end(key)
        return entry.prefix

    def release(self, key: PrefixKey) -> None:
        """One holder less."""
        entry = self._entries[key]
        entry.holders -= 1
        if entry.is_unwanted and not entry.holders:
            self._drop(key)

    def longest_start(self, key: PrefixKey) -> Prefix:
        """What the key's tokens have most in common with any prefix in memory, of the same model and salt."""
        found, shared = EMPTY_PREFIX, 0
        for other, entry in self._entries.items():
            if (other.adapter, other.salt) == (key.adapter, key.salt):
                length = _common(other.tokens, key.tokens)
                if length > shared:
                    found, shared = entry.prefix, length
        return found.start(shared)

    def set_aside(self, size_bytes: int) -> bool:
        """Make room for a prefix about to be made; False: there is none now, as others are held."""
        self._arrive_all()
        idle = sum(entry.prefix.size_bytes for entry in self._entries.values() if not entry.holders)
        if self._bytes - idle + size_bytes > self._budget:
            return False
        self._evict(self._budget - size_bytes)
        self._count(size_bytes)
        return True

    def give_back(self, size_bytes: int) -> None:
        """Undo ``set_aside``: the prefix will not be put."""
        self._count(-size_bytes)

    def put(self, key: PrefixKey, prefix: Prefix) -> Prefix:
        """Keep a prefix for which room was set aside, and hold it; gives what it is kept as.

        If it has come from the disk meanwhile, as another engine or a slow write put it there, that is kept.
        """
        if (there := self.hold(key)) is not None:
            self.give_back(prefix.size_bytes)
            return there
        if self._eight_bits:
            whole, prefix = prefix, prefix.in_eight_bits()
            self._count(prefix.size_bytes - whole.size_bytes)
        PREFIX_LOOKUPS.labels("compiled").inc()
        self._entries[key] = _Entry(prefix, holders=1)
        if self._files is not None:
            self._files.write(key, prefix)
        return prefix

    def shrink(self) -> None:
        """Let go of all that nobody holds."""
        self._arrive_all()
        self._evict(0)

    def forget(self, key: PrefixKey) -> None:
        """Delete a prefix for good, with what was cut from it, from the disk too; held ones go when released."""

        def is_start(other: PrefixKey) -> bool:
            return (other.adapter, other.salt) == (key.adapter, key.salt) and (
                key.tokens[: len(other.tokens)] == other.tokens
            )

        on_disk = self._files.starts(key) if self._files is not None else ()
        for gone in {key, *filter(is_start, self._entries), *filter(is_start, self._coming), *on_disk}:
            if gone in self._coming:
                self._coming[gone].is_unwanted = True
            if gone in self._entries:
                self._entries[gone].is_unwanted = True
                if not self._entries[gone].holders:
                    self._drop(gone)
            if self._files is not None:
                self._files.delete(gone)

    def _begins_to_come(self, key: PrefixKey, when_read: Callable[[], None]) -> bool:
        if self._files is None:
            return False
        size = self._files.size_bytes(key)
        if size is None:
            return False
        if sum(not coming.reading.done() for coming in self._coming.values()) >= _MOST_READ:
            return True  # a little later; one tenant's many do not take all the room at once
        if not self.set_aside(size):
            return False
        try:
            reading = self._files.fetch(key)
        except BaseException:
            self.give_back(size)
            raise
        self._coming[key] = _Coming(reading, size, time.monotonic() + _READ_SECONDS)
        reading.add_done_callback(lambda _: when_read())
        return True

    def _arrive_all(self) -> bool:
        """Whoever asked for what has been read may have left; whether there was any."""
        arrived = [key for key, coming in self._coming.items() if coming.reading.done()]
        for key in arrived:
            self._arrive(key)
        return bool(arrived)

    def _arrive(self, key: PrefixKey) -> None:
        """Keep what has been read, held by nobody."""
        coming = self._coming.pop(key)
        error = coming.reading.exception()
        if error is not None:  # no memory on the device, for example: then it is compiled, or refused for that
            _log.warning("prefix_file_not_read", exc_info=error)
            assert self._files is not None
            self._files.delete(key)  # or it would be read for ever, by one step
        prefix = None if error is not None else coming.reading.result()
        if prefix is None or coming.is_unwanted or key in self._entries:
            self.give_back(coming.size_bytes)
        else:
            self._count(prefix.size_bytes - coming.size_bytes)
            self._entries[key] = _Entry(prefix, source="disk")

    def _evict(self, most_bytes: int) -> None:
        for key in [key for key, entry in self._entries.items() if not entry.holders]:
            if self._bytes <= most_bytes:
                return
            self._drop(key)
            PREFIX_EVICTIONS.inc()

    def _drop(self, key: PrefixKey) -> None:
        self._count(-self._entries.pop(key).prefix.size_bytes)

    def _count(self, size_bytes: int) -> None:
        self._bytes += size_bytes
        PREFIX_BYTES.set(self._bytes)


def _common(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """How many tokens both begin with."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[:middle] == second[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
