import pytest

from manyicl_core.regex_syntax import check_regex


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("ab(", r"at character 3, '\(': unclosed group"),
        ("a/(", r"at character 3, '\(': unclosed group"),
        ("é\n(b", r"at character 3, '\(b': unclosed group"),
        ("[z-a]", "at character 2, 'z-a]': invalid character class range"),
        ("(?=a)b", "at character 1, .*: look-around"),
        (r"(a)\1", r"at character 4, .*: backreferences"),
        ("a)|(b", r"at character 2, '\)\|\(b': unopened group"),
    ],
)
def test_the_place_and_the_reason_are_told(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_regex(pattern)


@pytest.mark.parametrize("pattern", ["a+", "[0-9]{4}-[A-Z]{2}|none", "a/b", r"\p{L}+", "x\ny", "(x{1000}){1000}"])
def test_what_can_be_read_is_taken(pattern: str) -> None:
    check_regex(pattern)
