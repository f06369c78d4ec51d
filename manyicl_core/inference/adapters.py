"""Fine-tuned weights for the engine: fetched from the artifact store by hash, checked, kept while used."""

import shutil
from collections import OrderedDict
from pathlib import Path

import torch

from manyicl_core.base_models.load import free_memory, load_base_model
from manyicl_core.contract.weights import MODEL_FILE
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.objects import ArtifactStore, fetch_weights

_TRAINED_BYTES = torch.float32.itemsize


class UnknownAdapter(LookupError):
    """The artifact store has no weights of that hash."""


class DoesNotFit(Exception):
    """There is no memory for a whole model beside the base model."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(
            f"this fine-tuned model takes {needed / 2**20:.0f} MiB of memory beside the base model and "
            f"{free / 2**20:.0f} MiB are free; free some, or serve it from a machine with more"
        )


class Adapters:
    """At most ``capacity`` adapters beside the base model, and one model with all weights of its own.

    Of both the least recently used goes first.
    """

    def __init__(self, model: LanguageModel, store: ArtifactStore, folder: Path, capacity: int) -> None:
        self._model = model
        self._store = store
        self._folder = folder
        self._capacity = capacity
        self._attached: OrderedDict[str, None] = OrderedDict()
        self._whole: tuple[str, LanguageModel] | None = None

    def activate(self, sha256: str | None) -> LanguageModel:
        """The model to answer with: the base, plain or with this adapter active, or a whole model.

        Raises:
            UnknownAdapter: the store has none of that hash.
            DoesNotFit: it is a whole model, and there is no memory for it.
        """
        if sha256 is not None and not self._loaded(sha256):
            self._load(sha256)
        if self._whole is not None and self._whole[0] == sha256:
            return self._whole[1]
        if sha256 is not None:
            self._attached.move_to_end(sha256)
        self._model.activate(sha256)
        return self._model

    def _loaded(self, sha256: str) -> bool:
        return sha256 in self._attached or (self._whole is not None and self._whole[0] == sha256)

    def _load(self, sha256: str) -> None:
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise UnknownAdapter(sha256)
        folder = self._folder / sha256
        try:
            fetch_weights(self._store, sha256, folder)
            if (folder / MODEL_FILE).exists():
                self._load_whole(sha256, folder)
            else:
                self._attach(sha256, folder)
        except FileNotFoundError as error:
            raise UnknownAdapter(str(error)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _attach(self, sha256: str, folder: Path) -> None:
        self._model.attach(sha256, folder)
        self._attached[sha256] = None
        # Before the oldest goes, which may be the active one: PEFT would activate any other.
        self._model.activate(sha256)
        while len(self._attached) > self._capacity:
            oldest, _ = self._attached.popitem(last=False)
            self._model.detach(oldest)

    def _load_whole(self, sha256: str, folder: Path) -> None:
        self._whole = None  # its memory first
        device, dtype = self._model.device, self._model.dtype
        needed = (folder / MODEL_FILE).stat().st_size * dtype.itemsize // _TRAINED_BYTES
        free = free_memory(device)
        if needed > free:
            raise DoesNotFit(needed, free)
        self._whole = sha256, LanguageModel(load_base_model(folder, device, dtype))
