import gzip

import pytest

from manyicl_core.foreign_formats import foreign_format
from manyicl_core.jsonl import UnreadableFile, jsonl_lines

LINE = '{"task": "a", "input": "é", "output": "c"}\n'


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (gzip.compress(LINE.encode(), mtime=0), "gzip"),
        (b"PK\x03\x04\x14\x00", "xlsx"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"\x28\xb5\x2f\xfd\x04", "Zstandard"),
        (LINE.encode("utf-16"), "UTF-16"),
        (LINE.encode("utf-16-le"), "UTF-16"),
        (LINE.encode("utf-16-be"), "UTF-16"),
        (LINE.encode("utf-32"), "UTF-32"),
        (LINE.encode("utf-32-be"), "UTF-32"),
    ],
)
def test_what_is_no_text_is_named(content: bytes, name: str) -> None:
    told = foreign_format(content)
    assert told is not None and name in told
    # A file may be gzip of lines, and not of anything else.
    with pytest.raises(UnreadableFile, match=name):
        list(jsonl_lines([gzip.compress(content, mtime=0)], 10_000, 1000))


@pytest.mark.parametrize("text", ["", "{", LINE, "\ufeff" + LINE, "é", "[1]", "日本"])
def test_texts_are_taken(text: str) -> None:
    assert foreign_format(text.encode()) is None
