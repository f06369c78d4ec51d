"""Which engine a request goes to: the one that has its prefix warm."""

import hashlib
from array import array
from collections.abc import Iterable
from typing import Any

_START = 64
"""Tokens of a prompt without a context; all such prompts would meet at one engine otherwise."""


def routing_key(body: dict[str, Any]) -> bytes:
    """What requests share that should meet: the weights and the context, or how a text starts."""
    digest = hashlib.blake2b(body["model"].encode(), digest_size=16)
    prompt = body.get("prompt") or body["prompts"]
    first = prompt[0] if isinstance(prompt[0], list) else prompt
    digest.update(array("q", first[: body.get("prefix_tokens") or _START]).tobytes())
    return digest.digest()


def ranked(urls: Iterable[str], key: bytes) -> list[str]:
    """The URLs from best to worst for ``key``: rendezvous hashing (Thaler and Ravishankar, 1998).

    When one of them goes, only its own keys move; when it comes back they return to it.
    """
    return sorted(urls, key=lambda url: hashlib.blake2b(url.encode(), key=key).digest(), reverse=True)
