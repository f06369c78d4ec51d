"""The salt that keeps the prefixes of one project apart from another's in an engine's cache."""

import hashlib
import hmac

from manyicl_core.settings import get_settings, required


def cache_salt(project_id: str, weights_sha256: str | None, context_sha256: str) -> str:
    """64 hex characters: nobody can guess another project's, or time whether its prefix is warm.

    An engine that knows an adapter by its name alone would serve its old prefix after the weights
    have changed; the hash of the weights in the salt rules that out.

    Args:
        context_sha256: of the context's tokens; empty for a plain chat.
    """
    key = required(get_settings(), "secret_key")
    parts = "|".join(("prefix", project_id, weights_sha256 or "", context_sha256))
    return hmac.new(key.encode(), parts.encode(), hashlib.sha256).hexdigest()
