"""Datasets in this process's memory: what is asked for again and again is read and parsed once."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from weakref import WeakValueDictionary

from pydantic import TypeAdapter

from manyicl_core.method.tasks import Task

TASKS: TypeAdapter[list[Task]] = TypeAdapter(list[Task])


@dataclass(frozen=True, slots=True)
class _Kept:
    tasks: list[Task]
    bytes: int


class DatasetCache:
    """The datasets that were used last, up to ``most_bytes`` of JSON; in memory they take 3 to 14 times that.

    The newest stays also when it alone is larger: it would be parsed anew for every request.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._turns: WeakValueDictionary[str, Lock] = WeakValueDictionary()
        self._lock = Lock()

    def get(self, digest: str, read: Callable[[], bytes]) -> list[Task]:
        """The tasks of a dataset; of several threads that ask for it at once, one calls ``read``."""
        with self._lock:
            turn = self._turns.setdefault(digest, Lock())
        with turn:
            with self._lock:
                if digest in self._kept:
                    self._kept.move_to_end(digest)
                    return self._kept[digest].tasks
            content = read()
            tasks = TASKS.validate_json(content)
            with self._lock:
                self._kept[digest] = _Kept(tasks, len(content))
                self._drop_oldest()
            return tasks

    def _drop_oldest(self) -> None:
        while len(self._kept) > 1 and sum(kept.bytes for kept in self._kept.values()) > self._most_bytes:
            self._kept.popitem(last=False)
