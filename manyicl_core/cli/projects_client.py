"""What ``manyicl projects`` and ``manyicl keys`` ask of the service."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx2
from rich.box import SIMPLE
from rich.table import Column, Table
from rich.text import Text

from manyicl_core.cli.connection import ServiceFailed, answer_of

_PROJECTS = "organization/projects"
_PAGE = 100
_ID_CHARACTERS = len("proj_") + 24


class ProjectsClient:
    """Projects and keys of a running service, as far as the key of ``client`` may see them."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def create_project(self, name: str) -> dict[str, Any]:
        """A new project."""
        return self._send("POST", _PROJECTS, {"name": name})

    def archive_project(self, project: str) -> dict[str, Any]:
        """Close a project; its keys open nothing any more."""
        return self._send("POST", f"{_PROJECTS}/{self._project_id(project)}/archive")

    def list_projects(self) -> list[dict[str, Any]]:
        """Every project, archived ones too."""
        return list(self._pages(_PROJECTS, include_archived=True))

    def create_key(self, project: str | None, name: str, scopes: list[str] | None) -> dict[str, Any]:
        """A new key with its secret."""
        body = {"name": name} | ({} if scopes is None else {"scopes": scopes})
        return self._send("POST", self._keys_of(project), body)

    def list_keys(self, project: str | None) -> list[dict[str, Any]]:
        """The keys that hold."""
        return list(self._pages(self._keys_of(project)))

    def rotate_key(self, project: str | None, key_id: str, grace_seconds: int) -> dict[str, Any]:
        """A key in the place of another, with its secret."""
        return self._send("POST", f"{self._keys_of(project)}/{key_id}/rotate", {"grace_seconds": grace_seconds})

    def revoke_key(self, project: str | None, key_id: str) -> dict[str, Any]:
        """End a key."""
        return self._send("DELETE", f"{self._keys_of(project)}/{key_id}")

    def _keys_of(self, project: str | None) -> str:
        return f"{_PROJECTS}/{self._project_id(project)}/api_keys"

    def _project_id(self, project: str | None) -> str:
        """The id of the project of that name or id; without one, of the only one that the key sees."""
        seen = list(self._pages(_PROJECTS))
        named = [row for row in seen if project in (None, row["name"], row["id"])]
        if len(named) == 1:
            return str(named[0]["id"])
        names = ", ".join(row["name"] for row in seen)
        raise ServiceFailed(f"name one project with --project; this key sees {names}")

    def _pages(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        page = self._send("GET", path, limit=_PAGE, **query)
        yield from page["data"]
        while page["has_more"]:
            page = self._send("GET", path, limit=_PAGE, after=page["last_id"], **query)
            yield from page["data"]

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None, **query: Any) -> dict[str, Any]:
        try:
            return answer_of(self._client.request(method, path, json=body, params=query))
        except httpx2.HTTPError as error:
            raise ServiceFailed(
                f"{self._client.base_url} does not answer ({error}); is the service running?"
            ) from error


def projects_table(projects: list[dict[str, Any]]) -> Table:
    """Projects for a person to read."""
    table = _table("project", "created", "status")
    for row in projects:
        table.add_row(row["id"], Text(row["name"]), _date(row["created_at"]), row["status"])
    return table


def keys_table(keys: list[dict[str, Any]]) -> Table:
    """Keys for a person to read."""
    table = _table("key", "value", "scopes", "created", "ends")
    for row in keys:
        told = (row["redacted_value"], ", ".join(row["scopes"]), _date(row["created_at"]), _date(row["expires_at"]))
        table.add_row(row["id"], Text(row["name"]), *told)
    return table


def _table(*columns: str) -> Table:
    """The ids first and whole, however narrow the terminal: other commands take them."""
    return Table(
        Column("id", min_width=_ID_CHARACTERS), *(Column(name, overflow="fold") for name in columns), box=SIMPLE
    )


def _date(seconds: int | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
