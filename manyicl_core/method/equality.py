"""When two texts are the same text: Unicode can write one text with several sequences of code points."""

import unicodedata


def canonical(text: str) -> str:
    """The one form of all texts that are canonically equal to ``text`` (NFC); for comparing, never for showing."""
    return unicodedata.normalize("NFC", text)


def same_text(one: str, other: str) -> bool:
    """Whether two texts are canonically equal: readers cannot tell them apart, whatever their code points."""
    return one == other or canonical(one) == canonical(other)


def visible(text: str) -> str:
    r"""``text`` in quotes with everything but ASCII escaped: ``'cafe\u0301'`` shows what ``café`` hides."""
    return ascii(text)
