"""Regular expressions and JSON Schemas that an answer keeps to: how a task's model writes one, and what is wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from manyicl_core.errors import InvalidRequest
from manyicl_core.method.encoding import ANSWER_TEMPLATE, STOP


def answer_pattern(regex: str) -> str:
    """What a task's model writes for an answer that matches ``regex``: a space before it, a line break at its end."""
    return ANSWER_TEMPLATE.format(output=f"(?:{regex})") + STOP


@contextmanager
def naming_the_field(request: dict[str, Any]) -> Iterator[None]:
    """Let the engine's refusal of a grammar name the field from which ``request`` has it.

    Raises:
        InvalidRequest: the engine cannot follow the grammar.
    """
    try:
        yield
    except InvalidRequest as error:
        if error.code != "invalid_grammar" or error.param is not None:
            raise
        reason = error.message.removeprefix("structured_outputs: ")
        if "regex" in request["structured_outputs"]:
            field = "manyicl.regex"
            reason += "; the whole answer is matched: leave out anchors, look-around and back-references"
        else:
            field = "response_format"
        raise InvalidRequest(f"{field}: {reason}", field, error.code) from error
