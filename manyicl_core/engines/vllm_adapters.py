"""Adapters for vLLM servers: in a folder that they share with us, registered under names with their hash."""

import asyncio
import re
import shutil
import tempfile
from pathlib import Path

from manyicl_core.contract.weights import MODEL_FILE
from manyicl_core.engines.connection import Connection, UnknownModel
from manyicl_core.errors import InvalidRequest, NotFound, Unavailable
from manyicl_core.objects import ArtifactStore, fetch_weights, weights_key

_HASH = re.compile("[0-9a-f]{64}")


def is_weights_hash(model: str) -> bool:
    """Whether a request's model is fine-tuned weights, not the base model."""
    return _HASH.fullmatch(model) is not None


class NotServed(InvalidRequest):
    """This server cannot serve these weights; another one of the pool may."""


class AdapterFolder:
    """One folder an adapter, named by its hash and never changed.

    vLLM keys its prefix cache by an adapter's name and path: new weights under an old path would
    be answered with the old weights' cache.
    """

    def __init__(self, folder: Path, store: ArtifactStore) -> None:
        self._folder = folder
        self._store = store

    def fetch(self, sha256: str) -> Path:
        """The folder of these weights, complete; blocking.

        Raises:
            NotFound: the artifact store has none of that hash.
            NotServed: they are a whole model, not an adapter.
        """
        assert is_weights_hash(sha256)
        target = self._folder / sha256
        if target.is_dir():
            return target
        if MODEL_FILE in self._store.names(weights_key(sha256)):
            raise NotServed(
                "this model has all weights of its own, and the vLLM server of this installation serves "
                "adapters only; use a model trained with adaptation 'lora'",
                "model",
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".fetching-") as scratch:
            fetched = Path(scratch) / sha256
            try:
                fetch_weights(self._store, sha256, fetched)
            except FileNotFoundError as error:
                raise NotFound("stored weights", sha256, "model") from error
            try:
                fetched.rename(target)
            except OSError:  # somebody else was first
                assert target.is_dir()
        return target

    def remove(self, hashes: set[str]) -> None:
        """Delete the folders of these weights; blocking."""
        for sha256 in hashes:
            shutil.rmtree(self._folder / sha256, ignore_errors=True)


class Registrations:
    """What one vLLM server has registered, as far as we know; the artifact store is the truth."""

    def __init__(self, connection: Connection, folder: AdapterFolder | None) -> None:
        self._connection = connection
        self._folder = folder
        self._known: set[str] = set()
        self._lock = asyncio.Lock()

    async def name(self, sha256: str) -> str:
        """The name of these weights at the server, registered if it does not have them yet.

        Raises:
            NotServed: they are a whole model.
            Unavailable: there is no shared folder; trying again does not help.
        """
        name = f"manyicl-{sha256}"
        if name not in self._known:
            async with self._lock:  # many requests at once wait for one registration
                if name not in self._known:
                    await self._register(name, sha256)
                    self._known.add(name)
        return name

    def forget(self, sha256: str) -> None:
        """The server has lost these weights, as after a restart."""
        self._known.discard(f"manyicl-{sha256}")

    async def remove(self, sha256: str) -> None:
        """Unregister deleted weights; requests that run with them go on."""
        name = f"manyicl-{sha256}"
        self._known.discard(name)
        try:
            await self._connection.post("/v1/unload_lora_adapter", {"lora_name": name})
        except UnknownModel:
            return

    async def _register(self, name: str, sha256: str) -> None:
        if self._folder is None:
            error = Unavailable(
                "this installation's engine is a vLLM server, and fine-tuned models need a folder that it shares "
                "with the api: set MANYICL_ADAPTER_FOLDER"
            )
            error.retry_after_ms = None
            raise error
        path = await asyncio.to_thread(self._folder.fetch, sha256)
        try:
            await self._connection.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        except InvalidRequest:
            # Another api process may have registered it: the name says that the weights are the same.
            if name not in {entry["id"] for entry in await self._connection.models()}:
                raise
