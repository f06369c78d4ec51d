"""The tensors in a model's safetensors files, read without torch: https://github.com/huggingface/safetensors."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SAMPLE_BYTES = 4096


class BrokenTensors(ValueError):
    """A file is no safetensors file, or a part of one."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in a safetensors file, from the byte ``start`` of the file on."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    bytes: int

    @property
    def numbers(self) -> int:
        """How many there are in it."""
        return math.prod(self.shape)


def tensors_in(path: Path) -> dict[str, Tensor]:
    """The tensors of one file by name, in their order there.

    Raises:
        BrokenTensors: it is no safetensors file, or ends too early.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            entries: dict[str, Any] = json.loads(file.read(min(length, size)))
        except ValueError as error:
            raise BrokenTensors(f"{path} is no safetensors file; get it again") from error
    entries.pop("__metadata__", None)
    tensors = {}
    for name, entry in sorted(entries.items(), key=lambda item: int(item[1]["data_offsets"][0])):
        start, end = entry["data_offsets"]
        tensors[name] = Tensor(path, entry["dtype"], tuple(entry["shape"]), 8 + length + start, end - start)
        if 8 + length + end > size:
            raise BrokenTensors(f"{path} ends before its tensor {name}; get it again")
    return tensors


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """The tensors of all files in ``folder``.

    Raises:
        BrokenTensors: as ``tensors_in``.
    """
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in tensors_in(path).items()}


def weights_digest(folder: Path) -> str:
    """Tells weights from others, in milliseconds: SHA-256 of names, shapes and each tensor's first bytes.

    Whoever trains a model changes the beginning of its matrices too.

    Raises:
        BrokenTensors: as ``tensors_in``.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors_of(folder).items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape} ".encode())
        with tensor.path.open("rb") as file:
            file.seek(tensor.start)
            digest.update(file.read(min(tensor.bytes, _SAMPLE_BYTES)))
    return digest.hexdigest()
