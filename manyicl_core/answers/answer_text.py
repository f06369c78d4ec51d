"""From the engine's text to the answer's, piece by piece."""

from collections.abc import Sequence

from manyicl_core.method.encoding import ESCAPE_TAILS, escape_answer, split_escape, unescape_answer
from manyicl_core.method.tasks import ListedLabels
from manyicl_core.stop_strings import StopSearch


class PlainText:
    """A chat's text, as it comes."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string came that the engine has not looked for: then there is no more text."""
        return False

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

    An escape that a piece has only begun is held back: the next piece says what it means.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held = ""

    def push(self, piece: str) -> str:
        """The text that is certain after ``piece``."""
        text, self._held = split_escape(self._held + super().push(piece))
        return unescape_answer(text)

    def flush(self) -> str:
        """What is still held back, at the end."""
        text, self._held = self._held, ""
        return unescape_answer(text)


class LabelText(AnswerText):
    """A task's answer that is a label: told whole and as it is listed, however the tokenizer spells it."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self._labels = ListedLabels(labels)
        self._written = ""

    def push(self, piece: str) -> str:
        """Nothing: the label is known at its end."""
        self._written += super().push(piece)
        return ""

    def flush(self) -> str:
        """The label."""
        return self._labels.read(self._written + super().flush())


class StoppedText(PlainText):
    """A task's answer up to the first stop string in it, as the client reads it."""

    def __init__(self, text: PlainText, stops: Sequence[str]) -> None:
        self._text = text
        self._search = StopSearch(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string came."""
        return self._search.stopped

    def push(self, piece: str) -> str:
        """The text that is certain after ``piece``."""
        return self._search.push(self._text.push(piece))

    def flush(self) -> str:
        """What is still held back, at the end."""
        return self._search.push(self._text.flush()) + self._search.flush()


def engine_stops(stops: Sequence[str], escaped: bool) -> list[str]:
    """An answer's stop strings as they stand in the text that the engine writes; none where it could be mistaken.

    It would find some where the client reads none: in the space before an answer or, where the text is
    ``escaped``, inside an escape. Then it looks for none, so that the first one ends the
    answer: ``StoppedText`` finds them all.
    """
    written = [escape_answer(stop) if escaped else stop for stop in stops]
    is_mistakable = any(stop[0].isspace() or (escaped and stop[0] in ESCAPE_TAILS) for stop in written)
    return [] if is_mistakable else written
