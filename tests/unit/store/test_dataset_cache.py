"""Datasets in memory: bounded, and each read by one thread at a time."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from manyicl_core.method.tasks import Task
from manyicl_core.store.tasks.dataset_cache import TASKS, DatasetCache
from tests.unit.sample_tasks import task_of

CONTENT = TASKS.dump_json([task_of([("a", "b")])])


class Reader:
    """Counts how often each dataset is read."""

    def __init__(self, cache: DatasetCache) -> None:
        self.cache = cache
        self.read: list[str] = []

    def get(self, digest: str, content: bytes = CONTENT) -> list[Task]:
        def read() -> bytes:
            self.read.append(digest)
            return content

        return self.cache.get(digest, read)


def test_what_was_used_last_stays_and_the_rest_is_read_again() -> None:
    reader = Reader(DatasetCache(2 * len(CONTENT)))
    for digest in ("a", "b", "a", "c", "a", "b"):
        assert reader.get(digest) == TASKS.validate_json(CONTENT)
    assert reader.read == ["a", "b", "c", "b"]


def test_one_that_is_larger_than_all_may_be_stays_until_another_comes() -> None:
    reader = Reader(DatasetCache(len(CONTENT)))
    large = TASKS.dump_json([task_of([("a", "b")] * 10)])
    for digest, content in (("small", CONTENT), ("large", large), ("large", large), ("small", CONTENT)):
        reader.get(digest, content)
    assert reader.read == ["small", "large", "small"]
    reader.get("large", large)
    assert reader.read[-1] == "large"


def test_of_many_threads_one_reads_and_other_datasets_do_not_wait() -> None:
    reader = Reader(DatasetCache(1 << 20))
    begun, end = threading.Event(), threading.Event()

    def slowly() -> bytes:
        begun.set()
        assert end.wait(30)
        return CONTENT

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(reader.cache.get, "a", slowly)
        assert begun.wait(30)
        waiting = [threads.submit(reader.get, "a") for _ in range(3)]
        reader.get("b")
        end.set()
        assert all(other.result() is first.result() for other in waiting)
    assert reader.read == ["b"]


def test_a_dataset_that_could_not_be_read_is_tried_again() -> None:
    reader = Reader(DatasetCache(1 << 20))

    def gone() -> bytes:
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        reader.cache.get("a", gone)
    reader.get("a")
    assert reader.read == ["a"]
