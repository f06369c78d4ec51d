"""The artifact store: files by key in a folder, S3, GCS or Azure, through obstore.

On the ground floor because both wings use it: the service keeps uploads and adapters in it, and
the engine fetches weights from it (docs/decisions/0002). Weights are content-addressed and
created once: nobody, not even a stale worker, can replace them.
"""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
import structlog
from obstore.exceptions import AlreadyExistsError, GenericError, PermissionDeniedError, UnauthenticatedError
from obstore.exceptions import NotFoundError as ObjectNotFound
from obstore.store import LocalStore, ObjectStore, S3Store, from_url

from manyicl_core.contract.weights import tensors_file
from manyicl_core.errors import StorageAway, StorageFull
from manyicl_core.jsonl import chunks_of

_log = structlog.get_logger(__name__)

_PART = 4 * 1024 * 1024
_AT_ONCE = 16 * 1024 * 1024  # larger files are streamed
_STREAM_PART = 5 * 1024 * 1024  # the smallest that S3 takes
_STREAM_PARTS = 10_000  # the most that S3 takes
_COPY_AT_ONCE = 1024**3  # S3 would take 5 GB, but hardly in the 30 s that a request may last
_REFUSALS = (PermissionDeniedError, UnauthenticatedError)  # the service's keys, or its rights


class ArtifactStore:
    """Keys are made by code from ids and hashes, never from a user's words.

    Every method raises StorageAway when the store does not answer.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put(self, key: str, content: bytes | Path) -> None:
        """Store ``content`` under ``key`` unless the key exists, which then keeps what it has.

        Raises:
            StorageFull: there is no room.
        """
        if isinstance(content, Path) and content.stat().st_size > _AT_ONCE:
            # Streams cannot be told to create only: of two at once, the last one stays, whole.
            if not self.exists(key):
                with content.open("rb") as file:
                    self.put_stream(key, chunks_of(file), content.stat().st_size)
            return
        with _our_errors(key), suppress(AlreadyExistsError):
            obstore.put(self._store, key, content, mode="create", use_multipart=False)

    def put_stream(self, key: str, chunks: Iterable[bytes], size: int = 0) -> None:
        """Store ``chunks``, a few megabytes of them in memory, under a key that is new.

        All is stored or nothing, also when ``chunks`` raises. More than 50 GB need their ``size``
        in bytes told: S3 takes so many parts only.

        Raises:
            StorageFull: there is no room.
        """
        parts = iter(chunks)
        head = []
        begun = 0
        while begun < _STREAM_PART and (part := next(parts, None)) is not None:
            head.append(part)
            begun += len(part)
        with _our_errors(key):
            if begun < _STREAM_PART:  # all of it, in one request
                obstore.put(self._store, key, b"".join(head), use_multipart=False)
            else:
                part_size = max(_STREAM_PART, -(-size // _STREAM_PARTS))
                all_parts = chain(head, _pulled_elsewhere(parts))
                obstore.put(self._store, key, all_parts, chunk_size=part_size, max_concurrency=2)

    def exists(self, key: str) -> bool:
        """Whether there is an object under ``key``."""
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def get(self, key: str) -> bytes:
        """The whole object.

        Raises:
            FileNotFoundError: there is none under ``key``.
        """
        with _our_errors(key):
            return bytes(obstore.get(self._store, key).bytes())

    def size(self, key: str) -> int:
        """The object's length in bytes.

        Raises:
            FileNotFoundError: there is none under ``key``.
        """
        with _our_errors(key):
            return int(obstore.head(self._store, key)["size"])

    def stream(self, key: str) -> Iterator[bytes]:
        """The object in parts of a few megabytes.

        Each is asked for by itself: a request may last 30 s, and who reads may take longer over the whole.

        Raises:
            FileNotFoundError: there is none under ``key``.
        """
        size = self.size(key)
        for start in range(0, size, _PART):
            with _our_errors(key):
                part = obstore.get_range(self._store, key, start=start, end=min(start + _PART, size))
            yield bytes(part)

    def delete(self, key: str) -> None:
        """Remove the object, if there is one."""
        with suppress(FileNotFoundError), _our_errors(key):
            obstore.delete(self._store, key)

    def copy(self, key: str, target: str) -> None:
        """Store the object under ``target`` too, unless that exists.

        S3 cannot be told to copy only where nothing is: of two at once, the last one stays, whole.

        Raises:
            FileNotFoundError: there is none under ``key``.
        """
        if self.exists(target):
            return
        size = self.size(key)
        if isinstance(self._store, S3Store) and size > _COPY_AT_ONCE:
            self.put_stream(target, self.stream(key), size)
        else:
            with _our_errors(key):
                obstore.copy(self._store, key, target)

    def names(self, key: str) -> list[str]:
        """The names of the objects ``key/<name>``, sorted."""
        with _our_errors(key):
            objects = obstore.list(self._store, key).collect()
        return sorted(found["path"].removeprefix(f"{key}/") for found in objects)

    def put_folder(self, key: str, folder: Path) -> list[str]:
        """Store every file of ``folder`` (flat) under ``key/<name>``; return the names, sorted."""
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
        for name in names:
            self.put(f"{key}/{name}", folder / name)
        return names

    def get_folder(self, key: str, names: list[str], folder: Path) -> None:
        """Fetch ``key/<name>`` for every name into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            with (folder / name).open("wb") as file:
                for part in self.stream(f"{key}/{name}"):
                    file.write(part)


def _pulled_elsewhere(parts: Iterator[bytes]) -> Iterator[bytes]:
    """``parts``, pulled by a thread of their own: obstore's, inside its runtime, could not read from a store."""
    with ThreadPoolExecutor(1) as reader:
        while (part := reader.submit(next, parts, None).result()) is not None:
            yield part


@contextmanager
def _our_errors(key: str) -> Iterator[None]:
    """What the store says of ``key``, in our words."""
    try:
        yield
    except Exception as error:  # what a disk says comes in classes of obstore and of Python
        reason = str(error)
        if isinstance(error, _REFUSALS) or "NoSuchBucket" in reason:
            _log.error("artifact_store_refuses", key=key, reason=reason)
            raise StorageAway(
                "The artifact store refuses this service; its operator finds the reason in the log"
            ) from error
        if isinstance(error, ObjectNotFound | FileNotFoundError) and "NoSuchUpload" not in reason:
            raise FileNotFoundError(key) from error
        if "No space left" in reason:
            raise StorageFull("The artifact store has no room left; free some space and try again") from error
        if isinstance(error, GenericError | ObjectNotFound):
            _log.warning("artifact_store_failed", key=key, reason=reason)
            raise StorageAway("The artifact store does not answer; try again in a moment") from error
        raise


def open_store(url: str) -> ArtifactStore:
    """The store at a ``file://``, ``s3://``, ``gs://`` or ``az://`` URL; a folder is made if need be."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        folder = Path(unquote(parts.path))
        folder.mkdir(parents=True, exist_ok=True)
        return ArtifactStore(LocalStore(str(folder), automatic_cleanup=True))
    return ArtifactStore(from_url(url))


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_key(sha256: str) -> str:
    """Where the weights lie, an adapter or a whole model, whose safetensors file has this SHA-256."""
    return f"adapters/{sha256}"  # the folder's first name, from when there were only adapters


def put_weights(store: ArtifactStore, folder: Path) -> str:
    """Store the files that a trainer wrote into ``folder``; return the hash that names them."""
    digest = weights_hash(folder)
    store.put_folder(weights_key(digest), folder)
    return digest


def weights_hash(folder: Path) -> str:
    """The hash that names the weights in ``folder``."""
    return sha256_of(folder / tensors_file(path.name for path in folder.iterdir()))


def fetch_weights(store: ArtifactStore, sha256: str, folder: Path) -> None:
    """Fetch an adapter or a whole model, checked, into ``folder``.

    Raises:
        FileNotFoundError: the store has none of that hash.
    """
    names = store.names(weights_key(sha256))
    if not names:
        raise FileNotFoundError(sha256)
    store.get_folder(weights_key(sha256), names, folder)
    if weights_hash(folder) != sha256:
        raise FileNotFoundError(f"{sha256}: the stored file has another hash")
