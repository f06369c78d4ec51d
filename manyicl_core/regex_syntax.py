"""Regular expressions from strangers: what is wrong with one, and where."""

import re

from llguidance import LLMatcher

_QUOTED_CHARACTERS = 12
_COMPLAINT = re.compile(
    r"regex parse error:\n    (?P<pattern>.*)\n    (?P<before> *)\^+\n(?:.*\n)*?error: (?P<reason>.*)"
)
"""As Rust's regex crate writes it: the pattern, carets under the part at fault, the reason."""


def check_regex(pattern: str) -> None:
    """Refuse an expression that cannot be read; whether it can be followed is the engine's to say.

    Raises:
        ValueError: with the place and the reason.
    """
    problem = LLMatcher.validate_grammar(LLMatcher.grammar_from_regex(pattern))
    if not problem:
        return
    complaint = _COMPLAINT.search(problem)
    if complaint is None:
        told = problem.strip().splitlines()[0]
    else:
        position = _position(pattern, complaint["pattern"], len(complaint["before"]))
        at_fault = pattern[position : position + _QUOTED_CHARACTERS]
        told = f"at character {position + 1}, {at_fault!r}: {complaint['reason']}"
    raise ValueError(
        f"this is no regular expression that can be followed: {told}. The syntax is that of Rust's regex crate, "
        "without anchors, look-around and back-references"
    )


def _position(pattern: str, shown: str, column: int) -> int:
    """Where in ``pattern`` the ``column`` of it as ``shown`` lies, which writes some characters as two."""
    position = seen = 0
    while seen < column and position < len(pattern):
        seen += 1 if shown[seen] == pattern[position] else 2
        position += 1
    return position
