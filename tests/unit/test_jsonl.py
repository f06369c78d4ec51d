import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from manyicl_core import jsonl
from manyicl_core.foreign_formats import foreign_format
from manyicl_core.jsonl import UnreadableFile, jsonl_lines

LINES = [b'{"a": 1}\n', b"\n", b"x" * 99 + b"\n", b"last"]
PLAIN = b"".join(LINES)


def in_chunks(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


def read(content: bytes, max_bytes: int = 1 << 30, max_line_bytes: int = 1000) -> list[bytes]:
    return list(jsonl_lines(in_chunks(content, 1 << 16), max_bytes, max_line_bytes))


@given(st.binary(max_size=300), st.integers(1, 50), st.booleans())
def test_any_bytes_come_as_their_lines_however_they_are_cut(content: bytes, size: int, packed: bool) -> None:
    assume(foreign_format(content) is None)
    sent = gzip.compress(content, mtime=0) if packed else content
    lines = list(jsonl_lines(in_chunks(sent, size), 1 << 20, 1000))
    expected = content if packed else sent
    assert b"".join(lines) == expected
    assert len(lines) == len(expected.split(b"\n")) - (expected.endswith(b"\n") or not expected)


def test_gzip_of_several_members_is_one_file() -> None:
    assert read(gzip.compress(PLAIN, mtime=0) + gzip.compress(b"\nmore")) == [*LINES[:3], b"last\n", b"more"]


def test_a_line_that_is_too_long_is_cut_and_the_next_one_is_whole() -> None:
    assert read(b"y" * 300_000 + b"\nnext\n", max_line_bytes=10) == [b"y" * 11, b"next\n"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(PLAIN, mtime=0)[:-9], "ends too early"),
        (gzip.compress(PLAIN, mtime=0)[:5], "ends too early"),
        (b"\x1f\x8b", "ends too early"),
        (gzip.compress(PLAIN, mtime=0)[:-8] + b"\0" * 8, "damaged"),
        (b"\x1f\x8b" + b"x" * 50, "damaged"),
        (gzip.compress(PLAIN, mtime=0) + b"garbage", "damaged"),
        (gzip.compress(b"\n" * 3_000_000, mtime=0), "inflates more than 100 times"),
        (gzip.compress(b"a" * (8 << 20), mtime=0) * 3, "inflates more than 100 times"),
        (b"\n" * (jsonl.MAX_LINES + 1), "lines; split it"),
    ],
)
def test_gzip_that_is_damaged_or_a_bomb_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(UnreadableFile, match=said):
        read(content)


def test_the_limit_of_bytes_holds_for_what_comes_out() -> None:
    packed = gzip.compress(PLAIN * 100, mtime=0)
    assert len(packed) < 1000 < len(PLAIN) * 100
    with pytest.raises(UnreadableFile, match="more than 1000 bytes"):
        read(packed, max_bytes=1000)


def test_a_bomb_is_refused_in_little_memory() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b"z" * (1 << 20)) for _ in range(300)) + packer.flush()
    tracemalloc.start()
    with pytest.raises(UnreadableFile):
        read(bomb, max_line_bytes=1 << 20)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()
