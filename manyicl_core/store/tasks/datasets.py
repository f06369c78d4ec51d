"""A copy of the tasks of a job or an evaluation: content-addressed, so that deleting a file breaks nothing."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from manyicl_core.method.tasks import Task
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.tasks.dataset_cache import TASKS, DatasetCache

_IN_MEMORY = DatasetCache(64 << 20)


def store_dataset(store: ArtifactStore, tasks: list[Task]) -> str:
    """Keep the tasks; return their SHA-256, by which they are found."""
    content = TASKS.dump_json(tasks)
    digest = hashlib.sha256(content).hexdigest()
    store.put(_key(digest), content)
    return digest


def load_dataset(store: ArtifactStore, digest: str) -> list[Task]:
    """The tasks of a dataset."""
    return _IN_MEMORY.get(digest, lambda: store.get(_key(digest)))


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
