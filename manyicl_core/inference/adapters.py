"""Fine-tuned weights for the engine: fetched from the artifact store by hash, checked, kept while used."""

import shutil
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from manyicl_core.base_models.load import free_memory, load_base_model
from manyicl_core.contract.weights import MODEL_FILE
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from manyicl_core.inference.lora_bank import UnsupportedAdapter
from manyicl_core.inference.requests import OutOfMemory, StorageAway, UnknownAdapter
from manyicl_core.objects import ArtifactStore, fetch_weights

_TIED_HEAD = 1.3
"""A head that is tied to the embeddings is held twice (decision 20): at most about so many times all weights."""
_TRAINED_BYTES = torch.float32.itemsize
_MOST_FETCHED = 4
"""At a time: the others' turn comes when one of them is there."""
_UNCLAIMED = 4
"""Fetched weights that may wait on disk to be loaded."""


class Adapters:
    """At most ``capacity`` adapters beside the base model, and one model with all weights of its own.

    Of both the least recently used goes first. Weights are fetched beside the engine's work and
    attached between two steps.
    """

    def __init__(self, model: LanguageModel, store: ArtifactStore, folder: Path, capacity: int) -> None:
        self._model = model
        self._store = store
        self._folder = folder
        self._capacity = capacity
        self._attached: OrderedDict[str, None] = OrderedDict()
        self._whole: tuple[str, LanguageModel] | None = None
        self._fetching: dict[str, Future[Path]] = {}
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="fetch-weights")

    def get(
        self, sha256: str | None, in_use: Collection[str | None], when_fetched: Callable[[], None]
    ) -> TunedModel | None:
        """The model to answer with; None: not yet, as it is being fetched or others need the room.

        Args:
            in_use: hashes of weights that must stay.
            when_fetched: called, in another thread, when it is worth asking again.

        Raises:
            UnknownAdapter: the store has none of that hash, or none that can be served.
            StorageAway: the store does not answer.
            OutOfMemory: it is a whole model, and there is no memory for it.
        """
        if sha256 is None:
            return TunedModel(self._model)
        if self._whole is not None and self._whole[0] == sha256:
            return TunedModel(self._whole[1])
        if sha256 not in self._attached:
            folder = self._fetched(sha256, when_fetched)
            if folder is None or not self._load(sha256, folder, in_use):
                return None
            if self._whole is not None and self._whole[0] == sha256:
                return TunedModel(self._whole[1])
        self._attached.move_to_end(sha256)
        return TunedModel(self._model, sha256)

    def has_fetched(self, sha256: str | None) -> bool:
        """Whether these weights lie ready, and only room for them is missing."""
        return sha256 in self._fetching and self._fetching[sha256].done()

    def close(self) -> None:
        """Fetch no more."""
        self._threads.shutdown(cancel_futures=True)

    def _fetched(self, sha256: str, when_fetched: Callable[[], None]) -> Path | None:
        """The folder with the weights, once it is complete."""
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise UnknownAdapter(f"there are no weights {sha256!r}")
        fetching = self._fetching.get(sha256)
        if fetching is None:
            self._drop_unclaimed()
            if sum(not other.done() for other in self._fetching.values()) >= _MOST_FETCHED:
                return None  # when_fetched is called for those
            fetching = self._fetching[sha256] = self._threads.submit(self._fetch, sha256)
            fetching.add_done_callback(lambda _: when_fetched())
        if not fetching.done():
            return None
        try:
            return fetching.result()
        except FileNotFoundError as error:
            del self._fetching[sha256]
            raise UnknownAdapter(f"there are no weights {error}") from error
        except Exception as error:  # whatever a store on the network may raise
            del self._fetching[sha256]
            raise StorageAway(
                f"the weights cannot be fetched ({type(error).__name__}); try again in a moment"
            ) from error

    def _drop_unclaimed(self) -> None:
        """Delete weights that were fetched for a client who has left; should another wait, they are fetched again."""
        fetched = [sha256 for sha256, fetching in self._fetching.items() if fetching.done()]
        for sha256 in fetched[:-_UNCLAIMED]:
            self._forget(sha256, self._folder / sha256)

    def _fetch(self, sha256: str) -> Path:
        folder = self._folder / sha256
        shutil.rmtree(folder, ignore_errors=True)
        try:
            fetch_weights(self._store, sha256, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def _load(self, sha256: str, folder: Path, in_use: Collection[str | None]) -> bool:
        """Into memory, if what is in use leaves room."""
        try:
            if (folder / MODEL_FILE).exists():
                if self._whole is not None and self._whole[0] in in_use:
                    return False
                self._load_whole(sha256, folder)
            else:
                idle = [name for name in self._attached if name not in in_use]
                if len(self._attached) >= self._capacity and not idle:
                    return False
                if len(self._attached) >= self._capacity:
                    self._model.detach(idle[0])
                    del self._attached[idle[0]]
                self._model.attach(sha256, folder)
                self._attached[sha256] = None
        except UnsupportedAdapter as error:
            self._forget(sha256, folder)
            raise UnknownAdapter(str(error)) from error
        except OutOfMemory:
            self._forget(sha256, folder)
            raise
        self._forget(sha256, folder)
        return True

    def _forget(self, sha256: str, folder: Path) -> None:
        del self._fetching[sha256]
        shutil.rmtree(folder, ignore_errors=True)

    def _load_whole(self, sha256: str, folder: Path) -> None:
        self._whole = None  # its memory first
        device, dtype = self._model.device, self._model.dtype
        needed = int(_TIED_HEAD * (folder / MODEL_FILE).stat().st_size * dtype.itemsize / _TRAINED_BYTES)
        free = free_memory(device)
        if needed > free:
            raise OutOfMemory(
                f"this fine-tuned model takes {needed / 2**20:.0f} MiB of memory beside the base model and "
                f"{free / 2**20:.0f} MiB are free; free some, or serve it from a machine with more"
            )
        self._whole = sha256, LanguageModel(load_base_model(folder, device, dtype))
