"""Prefixes on disk: a cache that survives a restart. What is not exactly as it was written is not used."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import BoundedSemaphore

import structlog
import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from manyicl_core.inference.eight_bits import EightBitLayers
from manyicl_core.inference.prefix import Prefix, PrefixKey
from manyicl_core.inference.row_attention import Layers
from manyicl_core.method.encoding import ENCODER_VERSION, template_hash
from manyicl_core.objects import sha256_of

_PARTS = ("keys", "values")
_MOST_UNWRITTEN = 8
_HASH = "xxh3_128"

_log = structlog.get_logger(__name__)


class PrefixFiles:
    """One safetensors file a prefix, at most ``budget_bytes`` of them, the longest unread out first.

    A file is called by whose it is, how many tokens it is of, and which: so those that a context
    begins with are found by a look at the folder.

    Args:
        base: what the base model's weights, its dtype and the encoder are called together.
        device: where prefixes are loaded to.
    """

    def __init__(self, folder: Path, budget_bytes: int, base: str, device: torch.device) -> None:
        self._folder = folder
        self._budget = budget_bytes
        self._base = base
        self._device = device
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="write-prefixes")
        self._reading = ThreadPoolExecutor(2, thread_name_prefix="read-prefixes")
        self._unwritten = BoundedSemaphore(_MOST_UNWRITTEN)
        # To be deleted, when what is to be written is.
        self._going: set[Path] = set()
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob("*.part"):  # of a process that was killed
            part.unlink(missing_ok=True)

    def close(self) -> None:
        """Write what is still to be written, and read no more."""
        self._reading.shutdown(cancel_futures=True)
        self._writing.shutdown()

    def wait(self) -> None:
        """Return when all that was to be written is."""
        self._writing.submit(int).result()

    def size_bytes(self, key: PrefixKey) -> int | None:
        """Bytes of the key's file; None: there is none, or not for long."""
        path = self._path(key)
        try:
            return None if path in self._going else path.stat().st_size
        except FileNotFoundError:
            return None

    def starts(self, key: PrefixKey) -> Iterator[PrefixKey]:
        """Those of which there is a file and with which this one begins, the longest first; not it itself."""
        try:
            names = {path.stem for path in self._folder.glob(f"{self._owner(key)}-*.safetensors")}
        except OSError as error:
            _log.warning("prefix_folder_unreadable", reason=str(error))
            return
        lengths = {int(name.split("-")[1]) for name in names}
        for length in sorted((length for length in lengths if length < len(key.tokens)), reverse=True):
            start = key.start(length)
            if self._path(start).stem in names and self._path(start) not in self._going:
                yield start

    def fetch(self, key: PrefixKey) -> Future[Prefix | None]:
        """``read`` beside the engine's work."""
        return self._reading.submit(self.read, key)

    def read(self, key: PrefixKey) -> Prefix | None:
        """The key's prefix, checked against its hash; None if it cannot be used."""
        path = self._path(key)
        try:
            with safe_open(str(path), framework="pt") as file:
                expected = (file.metadata() or {}).get(_HASH)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (OSError, SafetensorError) as error:
            _log.warning("prefix_file_unreadable", file=path.name, reason=str(error))
            path.unlink(missing_ok=True)
            return None
        if _digest(path, tensors) != expected:
            _log.warning("prefix_file_changed", file=path.name)
            path.unlink(missing_ok=True)
            return None
        with suppress(OSError):  # it has just made room for another, or is another user's
            os.utime(path)
        # On a CPU they stay the file's pages, which leave memory with the prefix.
        return Prefix(key.tokens, _layers({name: tensor.to(self._device) for name, tensor in tensors.items()}))

    def write(self, key: PrefixKey, prefix: Prefix) -> None:
        """Write a prefix beside the engine's work; a failure costs only the file.

        What waits for a slow disk takes memory beyond the store's budget: a few may wait, the rest go unwritten.
        """
        path = self._path(key)
        if not self._unwritten.acquire(blocking=False):
            _log.warning("prefix_file_not_written", file=path.name, reason="the disk is slow, others wait for it")
            return
        self._writing.submit(self._write, path, prefix).add_done_callback(lambda _: self._unwritten.release())

    def delete(self, key: PrefixKey) -> None:
        """Delete the key's file, after all that is still to be written; it is not used from now on."""
        path = self._path(key)
        self._going.add(path)
        self._writing.submit(self._delete, path)

    def _path(self, key: PrefixKey) -> Path:
        return self._folder / f"{self._owner(key)}-{len(key.tokens)}-{key.tokens_sha256.hex()}.safetensors"

    def _owner(self, key: PrefixKey) -> str:
        """Whoever differs in the base model, its numbers, the encoder, the adapter or the tenant has other files."""
        return hashlib.sha256("\n".join([self._base, key.adapter or "", key.salt]).encode()).hexdigest()

    def _delete(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("prefix_file_not_deleted", file=path.name, reason=str(error))
        else:
            self._going.discard(path)

    def _write(self, path: Path, prefix: Prefix) -> None:
        if path.exists() or prefix.size_bytes > self._budget:
            return
        tensors = {name: tensor.cpu().contiguous() for name, tensor in _named(prefix.layers)}
        part = path.with_suffix(".part")
        try:
            # On a disk that others fill too; room within the budget is made when the file's size is known.
            self._remove_oldest(prefix.size_bytes - shutil.disk_usage(self._folder).free)
            save_file(tensors, part, {_HASH: _digest(path, tensors), "base": self._base})
            self._remove_oldest(self._kept_bytes() + part.stat().st_size - self._budget)
            part.replace(path)
        except (OSError, SafetensorError) as error:
            _log.warning("prefix_file_not_written", file=path.name, reason=str(error))
            part.unlink(missing_ok=True)

    def _kept_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._folder.glob("*.safetensors"))

    def _remove_oldest(self, least_bytes: int) -> None:
        """Delete at least so much of what was not read for longest."""
        if least_bytes <= 0:
            return
        files = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in self._folder.glob("*.safetensors"))
        for _, size, path in files:
            path.unlink(missing_ok=True)
            least_bytes -= size
            if least_bytes <= 0:
                return


def _named(layers: Layers) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a prefix with its name in the file."""
    if isinstance(layers, EightBitLayers):
        for number, parts in enumerate(layers.packed):
            for name, (numbers, scale) in zip(_PARTS, parts, strict=True):
                yield f"{number:04}.{name}", numbers
                yield f"{number:04}.{name}.scale", scale
    else:
        for number, layer in enumerate(layers):
            for name, part in zip(_PARTS, layer, strict=True):
                yield f"{number:04}.{name}", part


def _layers(tensors: dict[str, torch.Tensor]) -> Layers:
    """The other way round."""
    keys, values = _PARTS
    count = sum(name.endswith(f".{keys}") for name in tensors)
    if f"0000.{keys}.scale" not in tensors:
        return [(tensors[f"{number:04}.{keys}"], tensors[f"{number:04}.{values}"]) for number in range(count)]
    packed = [
        tuple((tensors[f"{number:04}.{name}"], tensors[f"{number:04}.{name}.scale"]) for name in _PARTS)
        for number in range(count)
    ]
    return EightBitLayers([(keys_, values_) for keys_, values_ in packed])


def base_name(folder: Path, dtype: torch.dtype, eight_bits: bool) -> str:
    """What keys and values depend on beside the adapter and the tokens: weights, numbers, encoder and template."""
    parts = [sha256_of(path) for path in sorted([*folder.glob("*.safetensors"), folder / "config.json"])]
    return "-".join([*parts, str(dtype), str(eight_bits), str(ENCODER_VERSION), template_hash()])


def _digest(path: Path, tensors: dict[str, torch.Tensor]) -> str:
    """Of names and bytes, and of what they are the prefix of, which the file is called by.

    It stands beside what it is of and finds mistakes, not malice: the fastest one that finds all of them.
    """
    digest = xxhash.xxh3_128(path.name.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].view(torch.uint8).numpy().data)
    return digest.hexdigest()
