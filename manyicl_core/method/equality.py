"""When two texts are the same text: Unicode can write one text with several sequences of code points."""

import unicodedata


def canonical(text: str) -> str:
    """The one form of all texts that are canonically equal to ``text`` (NFC); for comparing, never for showing."""
    return unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """What tokenizers that normalise most make of ``text``: compatibility forms (NFKC) and runs of white space too."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def same_text(one: str, other: str) -> bool:
    """Whether two texts are canonically equal: readers cannot tell them apart, whatever their code points."""
    return one == other or canonical(one) == canonical(other)


def visible(text: str) -> str:
    r"""``text`` in quotes for a message and, where it is not all ASCII, what it hides: ``'café' ('cafe\u0301')``."""
    return repr(text) if repr(text).isascii() else f"{text!r} ({text!a})"
