"""The demonstrations of a model's task, drawn and encoded once a process: a call only adds its query."""

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.errors import NotFound
from manyicl_core.method.contexts import draw_context
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.tasks.datasets import load_dataset

_Key = tuple[ArtifactStore, Path, str, str, int]

_turns: WeakValueDictionary[_Key, Lock] = WeakValueDictionary()
_turns_lock = Lock()


@dataclass(frozen=True, slots=True, eq=False)
class DrawnTask:
    """All of a task that a call adds its query to.

    Attributes:
        tokens: ids of the instruction and the demonstrations, in a tenth of the memory of a list.
        ends: ``ends[k]`` tokens, from the start, are the context of the first k demonstrations.
        instruction: what stands before the demonstrations.
        labels: the closed set of answers, or None.
        label_tokens: their ids, each with the stop id.
    """

    tokens: NDArray[np.int32]
    ends: tuple[int, ...]
    instruction: str
    labels: tuple[str, ...] | None
    label_tokens: list[list[int]] | None

    def first(self, max_shots: int | None, max_tokens: int) -> tuple[tuple[int, ...], int]:
        """The ids of the most demonstrations that both allow, and their number; the instruction is never left out."""
        shots = max(0, bisect_right(self.ends, max_tokens) - 1)
        if max_shots is not None:
            shots = min(shots, max_shots)
        return tuple(self.tokens[: self.ends[shots]].tolist()), shots


def drawn_task(store: ArtifactStore, folder: Path, digest: str, name: str, max_tokens: int) -> DrawnTask:
    """A task's demonstrations in the order in which calls show them, as many as fit into ``max_tokens``.

    Of several threads that ask for the same at once, one draws it.

    Args:
        store: where the dataset lies.
        folder: of the base model whose tokens they are.
        digest: of the dataset.
        name: of the task.
        max_tokens: what the context may have.

    Raises:
        NotFound: the dataset has no such task, or has been deleted meanwhile.
    """
    key = (store, folder, digest, name, max_tokens)
    with _turns_lock:
        turn = _turns.setdefault(key, Lock())
    with turn:
        return _drawn(*key)


@lru_cache(maxsize=256)
def _drawn(store: ArtifactStore, folder: Path, digest: str, name: str, max_tokens: int) -> DrawnTask:
    """A dataset is named by its content, so what is kept never lies."""
    task = next((task for task in load_dataset(store, digest) if task.definition.name == name), None)
    if task is None:
        raise NotFound("task of this model", name, "manyicl.task")
    encoder, labels = load_encoder(folder), task.definition.labels
    context = draw_context(encoder, task.definition, task.demonstrations, len(task.demonstrations), max_tokens)
    return DrawnTask(
        tokens=np.array(context.tokens, np.int32),
        ends=context.ends,
        instruction=task.definition.instruction,
        labels=None if labels is None else tuple(labels),
        label_tokens=None if labels is None else [encoder.answer(label) for label in labels],
    )
