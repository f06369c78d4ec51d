import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.strict_json import MAX_DEPTH, MAX_VALUES, parse_json

_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Without NUL; hypothesis leaves surrogates out by itself.
    | st.text(st.characters(exclude_characters="\x00", codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text('ab[]{},"\\é😀', max_size=4), inner, max_size=4)
    ),
)


@given(_values, st.booleans())
def test_what_is_json_and_storable_is_read_as_it_was_written(value: object, escaped: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=escaped)) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "invalid JSON"),
        ("{'a': 1}", "invalid JSON"),
        ('{"a": 1} x', "invalid JSON"),
        ("\ufeff{}", "invalid JSON"),
        ('"a\nb"', "invalid JSON"),
        ("[NaN]", "NaN is no JSON number"),
        ("-Infinity", "-Infinity is no JSON number"),
        ("[1e999]", "the number 1e999 is too large"),
        ("9" * 5000, "99999999999999999999… is too large"),
        ("1" * 5000 + ".5", "too large"),
        (str(2**63), "64 bits"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' occurs twice"),
        ('[{"a": {"b": 1, "\\u0062": 1}}]', "the key 'b' occurs twice"),
        ('"\\ud800"', "surrogate pair"),
        ('{"\\udfff": 1}', "surrogate pair"),
        ('["\\u0000"]', "NUL"),
        ("[" * 100_000, f"deeper than {MAX_DEPTH}"),
        ('{"a":' * 70 + "1" + "}" * 70, f"deeper than {MAX_DEPTH}"),
        ("[" + "0," * MAX_VALUES + "0]", f"more than {MAX_VALUES} values"),
    ],
)
def test_what_would_break_later_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", "\\(")):
        parse_json(text)


def test_brackets_commas_and_escapes_in_texts_count_for_nothing() -> None:
    text = "[{," * MAX_VALUES + '\\u0000 "\\ud800"'
    assert parse_json(json.dumps([text])) == [text]
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None


def test_an_unfinished_text_of_a_million_quotes_takes_no_time() -> None:
    begun = time.perf_counter()
    with pytest.raises(ValueError, match="invalid JSON"):
        parse_json('"' + "[" * 65 + '\\"' * 1_000_000)
    assert time.perf_counter() - begun < 60
