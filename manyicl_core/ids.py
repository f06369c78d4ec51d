"""Public ids: a prefix that says what it is, and 24 random characters."""

import secrets
import string

_ALPHABET = string.ascii_letters + string.digits


def new_id(prefix: str) -> str:
    """A new id such as ``ftjob-…`` or ``file-…``; 142 random bits."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(24))
