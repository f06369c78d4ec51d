"""What is carried out, and may not be what was meant."""

from collections.abc import Iterator

# Before Python 3.12 pydantic cannot read the one in typing.
from typing_extensions import TypedDict


class Warned(TypedDict):
    """A ``code`` for programs, a ``message`` for people."""

    code: str
    message: str


def shots_warnings(asked: int | None, shown: int) -> Iterator[Warned]:
    """A warning where fewer demonstrations are shown than were asked for."""
    if asked is not None and shown < asked:
        message = (
            f"{asked} demonstrations were asked for and {shown} are shown: there are no more, or no more fit beside "
            "a query and its answer"
        )
        yield {"code": "max_shots_not_met", "message": message}
