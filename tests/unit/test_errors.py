"""What is told of an error that nobody expected."""

import pytest

from manyicl_core.errors import in_its_own_words


class NotSupportedError(Exception):
    """Named as obstore's."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NotSupportedError("S3 has no copy\n\nDebug source: Config { … }"), "NotSupportedError: S3 has no copy"),
        (ValueError(), "ValueError"),
        (KeyError("k"), "KeyError: 'k'"),
        (OSError("no route to postgresql://manyicl:pa55@db/manyicl"), "OSError: no route to postgresql://…@db/manyicl"),
        (OSError("signed with open-sesame-1 and refused"), "OSError: signed with … and refused"),
        (RuntimeError("x" * 1000), "RuntimeError: " + "x" * 500),
    ],
)
def test_an_error_tells_its_class_and_first_line_and_no_secret(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "open-sesame-1")
    assert in_its_own_words(error) == told
