"""The lines of JSONL files from strangers, plain or gzip, read in bounded memory."""

import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import BinaryIO

from manyicl_core.foreign_formats import foreign_format

MAX_RATIO = 100
"""Inflated bytes over compressed ones; JSON Lines stay far below, a bomb has a thousand."""

MAX_LINES = 2_000_000
"""Of one file, blank ones too."""

_GZIP = b"\x1f\x8b"
_HEAD_BYTES = 16  # enough to know a format by
_FREE_BYTES = 1 << 20  # so many come out whatever the ratio
_MAX_MEMBERS = 100_000
_CHUNK = 1 << 16


class UnreadableFile(ValueError):
    """A file that cannot be read to its end; the message says why, and what to do."""


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    """What is left of the file, in parts of 64 kB."""
    return iter(partial(file.read, _CHUNK), b"")


def is_gzip(head: bytes) -> bool:
    """Whether a file that begins so is gzip."""
    return head.startswith(_GZIP)


def jsonl_lines(chunks: Iterable[bytes], max_bytes: int, max_line_bytes: int) -> Iterator[bytes]:
    """The lines, each with its line break; what is gzip is inflated.

    Args:
        chunks: the file's content.
        max_bytes: that it may have, inflated.
        max_line_bytes: a longer line comes with one byte more than these, and without its rest.

    Raises:
        UnreadableFile: there is more, or more than ``MAX_LINES``, or it is no text in UTF-8 but what
            ``foreign_format`` knows, or its gzip is damaged or inflates more than ``MAX_RATIO`` times.
    """
    head, content = _headed(chunks)
    if is_gzip(head):
        head, content = _headed(_inflated(content))
    if (told := foreign_format(head)) is not None:
        raise UnreadableFile(told)
    lines = _lines(_bounded(content, max_bytes), max_line_bytes)
    for number, line in enumerate(lines, start=1):
        if number > MAX_LINES:
            raise UnreadableFile(f"the file has more than {MAX_LINES} lines; split it")
        yield line


def _headed(chunks: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """How the chunks begin, and all of them."""
    parts = iter(chunks)
    head = b""
    while len(head) < _HEAD_BYTES and (part := next(parts, None)) is not None:
        head += part
    return head, chain([head], parts)


def _lines(chunks: Iterable[bytes], max_line_bytes: int) -> Iterator[bytes]:
    line = bytearray()
    for chunk in chunks:
        start = 0
        while end := chunk.find(b"\n", start) + 1:
            line += chunk[start:end]
            yield bytes(line[: max_line_bytes + 1])
            line.clear()
            start = end
        line += chunk[start:]
        del line[max_line_bytes + 1 :]
    if line:
        yield bytes(line)


def _bounded(chunks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > max_bytes:
            raise UnreadableFile(f"the file holds more than {max_bytes} bytes; split it")
        yield chunk


def _inflated(chunks: Iterable[bytes]) -> Iterator[bytes]:
    inflater = zlib.decompressobj(wbits=31)
    members, taken, given = 1, 0, 0
    for chunk in chunks:
        taken += len(chunk)
        left, full = chunk, False
        while left or full:
            if inflater.eof:
                inflater = zlib.decompressobj(wbits=31)
                members += 1
            try:
                content = inflater.decompress(left, _CHUNK)
            except zlib.error as error:
                raise UnreadableFile(f"the gzip data is damaged ({error}); compress and upload it again") from None
            full = len(content) == _CHUNK and not inflater.eof
            left = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            given += len(content)
            if members > _MAX_MEMBERS or given > max(_FREE_BYTES, MAX_RATIO * taken):
                raise UnreadableFile(f"the gzip data inflates more than {MAX_RATIO} times; upload it uncompressed")
            yield content
    if not inflater.eof:
        raise UnreadableFile("the gzip data ends too early; upload the whole file")
