"""From the engine's text to the answer's, piece by piece."""

from manyicl_core.method.encoding import unescape_answer


class PlainText:
    """A chat's text, as it comes."""

    def push(self, piece: str) -> str:
        """The text that is certain after ``piece``."""
        return piece

    def flush(self) -> str:
        """What is still held back, at the end."""
        return ""


class JsonText(PlainText):
    """A task's answer that a grammar made: without white space before it; its escapes are JSON's own."""

    def __init__(self) -> None:
        self._started = False

    def push(self, piece: str) -> str:
        """The text that is certain after ``piece``."""
        if not self._started:
            piece = piece.lstrip()
            self._started = bool(piece)
        return piece


class MatchedText(PlainText):
    """A task's answer that matches a regular expression: all but the space that every answer starts with."""

    def __init__(self) -> None:
        self._started = False

    def push(self, piece: str) -> str:
        """The text that is certain after ``piece``."""
        if not self._started:
            self._started = bool(piece)
            return piece.removeprefix(" ")
        return piece


class AnswerText(JsonText):
    """A task's answer: without the space that every answer starts with, escapes resolved.

    A backslash at the end of a piece is held back: the next piece says what it means.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held = ""

    def push(self, piece: str) -> str:
        """The text that is certain after ``piece``."""
        text = self._held + super().push(piece)
        trailing = len(text) - len(text.rstrip("\\"))
        keep = trailing % 2
        self._held = text[len(text) - keep :]
        return unescape_answer(text[: len(text) - keep])

    def flush(self) -> str:
        """What is still held back, at the end."""
        text, self._held = self._held, ""
        return text
