"""The methods of a client, and which of them have passed."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from openai import APIStatusError, OpenAI

RESOURCES = (
    "files",
    "uploads",
    "uploads.parts",
    "fine_tuning.jobs",
    "fine_tuning.jobs.checkpoints",
    "fine_tuning.checkpoints.permissions",
    "models",
    "chat.completions",
    "chat.completions.messages",
    "responses",
    "responses.input_items",
    "responses.input_tokens",
    "completions",
    "batches",
    "webhooks",
    "webhooks.event_types",
)
WEBSOCKETS = ("connect",)  # no requests
PASSED = "pass"


class Stopped(Exception):
    """A method has failed, and what comes after it cannot be tried."""


@dataclass
class Methods:
    """What came out for each method; one that nothing has tried is not there."""

    results: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def __call__(self, *names: str) -> Iterator[None]:
        """Everything that the methods ``names`` must do."""
        try:
            yield
        except Exception as error:
            for name in names:
                self.results[name] = f"{type(error).__name__}: {error}"
            raise Stopped from error
        for name in names:
            self.results.setdefault(name, PASSED)


def refused(call: Callable[[], object]) -> APIStatusError:
    """The error that the api answers a call with."""
    try:
        call()
    except APIStatusError as error:
        return error
    raise AssertionError("the call went through")


def methods_of(client: OpenAI) -> list[str]:
    """The names of all methods that this version of the client has on the resources of ours."""
    return [f"{resource}.{name}" for resource in RESOURCES for name in _public(client, resource)]


def _public(client: OpenAI, resource: str) -> list[str]:
    """The methods of a resource; an older client may not have it."""
    found: Any = client
    for part in resource.split("."):
        found = getattr(found, part, None)
    kind = type(found)
    names = [name for name in dir(kind) if found is not None and not name.startswith(("_", "with_"))]
    names = [name for name in names if name not in WEBSOCKETS]
    return [name for name in names if inspect.isfunction(inspect.unwrap(getattr(kind, name)))]
