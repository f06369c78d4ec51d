"""How the command line reaches a running service, and what it says when it does not."""

import json
from pathlib import Path
from typing import Any

import httpx2

CONNECTION_FILE = Path("manyicl-data/connection.json")


class ServiceFailed(RuntimeError):
    """Why the service did not do what was asked, and what to do."""


def find_service(connection: Path, base_url: str | None, api_key: str | None) -> tuple[str, str]:
    """URL and key of the service: as given, or from the connection file.

    Raises:
        ServiceFailed: neither tells both.
    """
    if base_url and api_key:
        return base_url, api_key
    try:
        known = json.loads(connection.read_text(encoding="utf-8"))
        return str(known["base_url"]), str(known["api_key"])
    except (OSError, ValueError, KeyError):
        raise ServiceFailed(
            f"{connection} does not tell where the service is; start `manyicl up`, or give --connection"
        ) from None


def open_client(base_url: str, api_key: str, seconds: float = 30.0) -> httpx2.Client:
    """A client of the service's API, whose requests may take ``seconds``."""
    return httpx2.Client(base_url=base_url, headers={"Authorization": f"Bearer {api_key}"}, timeout=seconds)


def answer_of(response: httpx2.Response) -> dict[str, Any]:
    """The object that the service answered with.

    Raises:
        ServiceFailed: it refused, or is no ManyICL service.
    """
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.is_success and isinstance(answer, dict):
        return answer
    if isinstance(answer, dict) and "error" in answer:
        raise ServiceFailed(str(answer["error"]["message"]))
    raise ServiceFailed(f"{response.url} answered with status {response.status_code}; is it a ManyICL service?")
