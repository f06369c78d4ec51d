import pytest

from manyicl_core.method.equality import canonical, same_text, visible


@pytest.mark.parametrize(
    ("one", "other"), [("caf\u00e9", "cafe\u0301"), ("\u03a9", "\u2126"), ("\uac00", "\u1100\u1161"), ("a", "a")]
)
def test_texts_that_differ_in_code_points_only_are_the_same(one: str, other: str) -> None:
    assert same_text(one, other)
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"), [("\ufb01", "fi"), ("\uff11", "1"), ("a", "\u0430"), ("a", "a "), ("e", "é")]
)
def test_texts_that_mean_or_show_something_else_are_not(one: str, other: str) -> None:
    assert not same_text(one, other)


def test_what_cannot_be_seen_is_shown() -> None:
    assert visible("cafe\u0301\xa0") == "'cafe\u0301\\xa0' ('cafe\\u0301\\xa0')"
    assert visible("a\u200bb\xa0") == r"'a\u200bb\xa0'"
