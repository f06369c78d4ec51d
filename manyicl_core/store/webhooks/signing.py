"""Secrets and signatures in the form of Standard Webhooks (https://www.standardwebhooks.com), as OpenAI uses it."""

import base64
import hashlib
import hmac

from manyicl_core.settings import get_settings, required


def signing_secret(endpoint_id: str, version: int) -> str:
    """An endpoint's secret, ``whsec_<base64>``: derived, so that no table holds it."""
    key = required(get_settings(), "secret_key")
    derived = hmac.new(key.encode(), f"webhook|{endpoint_id}|{version}".encode(), hashlib.sha256).digest()
    return "whsec_" + base64.b64encode(derived).decode()


def signed_headers(event_id: str, timestamp: int, body: str, secrets: list[str]) -> dict[str, str]:
    """The headers of one attempt; a receiver accepts a signature by any of ``secrets``."""
    signatures = []
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        digest = hmac.new(key, f"{event_id}.{timestamp}.{body}".encode(), hashlib.sha256).digest()
        signatures.append("v1," + base64.b64encode(digest).decode())
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }
