"""What an engine knows a project by: it must not learn more, and nobody must guess another's."""

import hashlib
import hmac

from manyicl_core.settings import get_settings, required


def cache_salt(project_id: str, weights_sha256: str | None) -> str:
    """Keeps a project's prefixes apart from another's: nobody can guess it, or time whether a prefix is warm.

    An engine that knows an adapter by its name alone would serve its old prefix after the weights
    have changed; the hash of the weights in the salt rules that out.
    """
    return _keyed("prefix", project_id, weights_sha256 or "")


def tenant(project_id: str) -> str:
    """Whose request it is, for the engine's fairness."""
    return _keyed("tenant", project_id)


def _keyed(*parts: str) -> str:
    """64 hex characters, as vLLM takes them too."""
    key = required(get_settings(), "secret_key")
    return hmac.new(key.encode(), "|".join(parts).encode(), hashlib.sha256).hexdigest()
