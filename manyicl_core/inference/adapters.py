"""Adapters for the engine: fetched from the artifact store by hash, checked, kept while used."""

import shutil
from collections import OrderedDict
from pathlib import Path

from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.objects import ArtifactStore, fetch_weights


class UnknownAdapter(LookupError):
    """The artifact store has no adapter of that hash."""


class Adapters:
    """At most ``capacity`` adapters beside the base model, least recently used out first."""

    def __init__(self, model: LanguageModel, store: ArtifactStore, folder: Path, capacity: int) -> None:
        self._model = model
        self._store = store
        self._folder = folder
        self._capacity = capacity
        self._attached: OrderedDict[str, None] = OrderedDict()

    def activate(self, sha256: str | None) -> None:
        """Answer with this adapter, or with the plain base model.

        Raises:
            UnknownAdapter: the store has none of that hash.
        """
        if sha256 is not None:
            if sha256 not in self._attached:
                self._attach(sha256)
            self._attached.move_to_end(sha256)
        self._model.activate(sha256)

    def _attach(self, sha256: str) -> None:
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise UnknownAdapter(sha256)
        folder = self._folder / sha256
        try:
            fetch_weights(self._store, sha256, folder)
            self._model.attach(sha256, folder)
        except FileNotFoundError as error:
            raise UnknownAdapter(str(error)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._attached[sha256] = None
        # Before the oldest goes, which may be the active one: PEFT would activate any other.
        self._model.activate(sha256)
        while len(self._attached) > self._capacity:
            oldest, _ = self._attached.popitem(last=False)
            self._model.detach(oldest)
