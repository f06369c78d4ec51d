"""A zip archive made while it is sent: nothing of it is kept."""

import io
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any


class _Sink(io.RawIOBase):
    """Takes what an archive writes, until it is sent."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        part = bytes(data)
        self._parts.append(part)
        return len(part)

    def drained(self) -> Iterator[bytes]:
        """What has come since the last time."""
        parts, self._parts = self._parts, []
        yield from parts


def zipped(entries: Iterable[tuple[str, Iterable[bytes]]]) -> Iterator[bytes]:
    """The archive of named contents, uncompressed, since weights do not compress; the same bytes every time."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in entries:
            # A ZipInfo without a time says 1980, as reproducible archives do.
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as entry:
                for part in content:
                    entry.write(part)
                    yield from sink.drained()
    yield from sink.drained()
