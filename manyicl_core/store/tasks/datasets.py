"""A copy of the tasks of a job or an evaluation: content-addressed, so that deleting a file breaks nothing."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter

from manyicl_core.method.tasks import Task
from manyicl_core.objects import ArtifactStore

_TASKS: TypeAdapter[list[Task]] = TypeAdapter(list[Task])


def store_dataset(store: ArtifactStore, tasks: list[Task]) -> str:
    """Keep the tasks; return their SHA-256, by which they are found."""
    content = _TASKS.dump_json(tasks)
    digest = hashlib.sha256(content).hexdigest()
    store.put(_key(digest), content)
    return digest


@lru_cache(maxsize=16)
def load_dataset(store: ArtifactStore, digest: str) -> list[Task]:
    """The tasks of a dataset."""
    return _TASKS.validate_json(store.get(_key(digest)))


@contextmanager
def fetched(store: ArtifactStore, key: str) -> Iterator[Path]:
    """An object as a temporary file, streamed."""
    with tempfile.NamedTemporaryFile() as file:
        for part in store.stream(key):
            file.write(part)
        file.flush()
        yield Path(file.name)


def _key(digest: str) -> str:
    return f"datasets/{digest}.json"
