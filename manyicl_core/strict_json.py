"""JSON from strangers: what the rest of the service cannot hold is refused while it is read."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

MAX_DEPTH = 64
MAX_VALUES = 200_000
"""In one document; wrong ones take about a kilobyte of memory each until the error is written."""

_LONGEST_NUMBER = 400  # characters; a float written out in full has fewer
_LARGEST_INTEGER = 2**63
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # possessive, and matching to the end: linear
_SUSPECT_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


def parse_json(text: str) -> Any:
    """The value of a JSON document, which holds nothing that breaks somewhere later.

    Raises:
        ValueError: it is not JSON as RFC 8259 has it; a key occurs twice; it nests deeper than
            ``MAX_DEPTH`` or has more than ``MAX_VALUES`` values; a number is not finite or not
            one of 64 bits; a text holds NUL or half a surrogate pair. The message says which.
    """
    _refuse_bombs(text)
    try:
        value = json.loads(
            text,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_distinct,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON ({error})") from None
    if _SUSPECT_ESCAPE.search(text):
        for string in _strings(value):
            _refuse_unstorable(string)
    return value


def _refuse_bombs(text: str) -> None:
    """Before anything is built: the parser's stack and the memory of what it builds are bounded."""
    brackets = text.count("[") + text.count("{")
    if brackets <= MAX_DEPTH and text.count(",") + brackets <= MAX_VALUES:
        return
    structure = _STRINGS.sub("", text)
    if structure.count(",") + structure.count("[") + structure.count("{") > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values in one document; split it")
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", structure):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels; flatten it")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number; write a finite number, or null")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {_shortened(digits)} is too large")
    return value


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER or not -_LARGEST_INTEGER <= int(digits) < _LARGEST_INTEGER:
        raise ValueError(f"the number {_shortened(digits)} is too large; integers have 64 bits")
    return int(digits)


def _shortened(digits: str) -> str:
    return digits if len(digits) <= 24 else f"{digits[:20]}…"


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:64]!r} occurs twice; give it once")
    return content


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)


def _refuse_unstorable(text: str) -> None:
    if "\x00" in text:
        raise ValueError("a NUL character (\\u0000) in a text; remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair (\\ud800 to \\udfff) in a text; write the whole character") from None
