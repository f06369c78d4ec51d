"""Merge a LoRA adapter into its base model: the bytes of one safetensors file, made as they are sent.

No torch, and neither model is ever in memory as a whole: what is not adapted is copied in parts,
and of an adapted matrix a few rows at a time become ``W + alpha / rank * B A``, in float32 and then
in the base's own dtype. The format of the files: https://github.com/huggingface/safetensors.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyicl_core.base_models.tensor_files import Tensor, tensors_in, tensors_of
from manyicl_core.contract.weights import ADAPTER_CONFIG_FILE, ADAPTER_FILE

_PART_BYTES = 4 << 20
_NUMBERS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_ADAPTED = "base_model.model."


def _floats(tensor: Tensor, first: int = 0, last: int | None = None) -> NDArray[np.float32]:
    """The rows from ``first`` to before ``last`` of a matrix."""
    numbers: NDArray[Any] = np.memmap(tensor.path, _NUMBERS[tensor.dtype], "r", tensor.start, tensor.shape)[first:last]
    if tensor.dtype == "BF16":  # the upper half of a float32
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32)


class MergedModel:
    """A base model with an adapter merged into it.

    Attributes:
        bytes: the length of the file.
    """

    def __init__(self, base_folder: Path) -> None:
        self._tensors = tensors_of(base_folder)
        self._header = _header(self._tensors)
        self.bytes = len(self._header) + sum(tensor.bytes for tensor in self._tensors.values())

    def stream(self, adapter_folder: Path) -> Iterator[bytes]:
        """The file, in parts of a few megabytes.

        Args:
            adapter_folder: an adapter in PEFT's format, as a trainer saves it.
        """
        config = json.loads((adapter_folder / ADAPTER_CONFIG_FILE).read_text(encoding="utf-8"))
        for option in ("use_dora", "use_rslora", "fan_in_fan_out"):
            assert not config.get(option), f"an adapter with {option} cannot be merged"
        scale = np.float32(config["lora_alpha"] / config["r"])
        adapter = tensors_in(adapter_folder / ADAPTER_FILE)
        targets = {name.removeprefix(_ADAPTED).removesuffix(".lora_A.weight") for name in adapter if ".lora_A." in name}
        strange = sorted(target for target in targets if f"{target}.weight" not in self._tensors)
        assert not strange, f"the base model has no weights of {strange[:3]}, which the adapter changes"
        yield self._header
        for name, tensor in self._tensors.items():
            target = name.removesuffix(".weight")
            if target in targets:
                a, b = (adapter[f"{_ADAPTED}{target}.lora_{letter}.weight"] for letter in "AB")
                yield from _merged(tensor, a, b, scale)
            else:
                yield from _copied(tensor)


def _merged(weight: Tensor, a: Tensor, b: Tensor, scale: np.float32) -> Iterator[bytes]:
    rows, columns = weight.shape
    down = _floats(a)
    at_once = max(1, _PART_BYTES // (4 * columns))
    for first in range(0, rows, at_once):
        last = min(first + at_once, rows)
        sum_ = _floats(weight, first, last) + scale * (_floats(b, first, last) @ down)
        yield _encoded(sum_, weight.dtype)


def _encoded(values: NDArray[np.float32], dtype: str) -> bytes:
    if dtype != "BF16":
        return values.astype(_NUMBERS[dtype]).tobytes()
    bits = np.ascontiguousarray(values).view(np.uint32)
    nearest = bits + 0x7FFF + ((bits >> 16) & 1)  # ties to even
    return (nearest >> 16).astype("<u2").tobytes()


def _copied(tensor: Tensor) -> Iterator[bytes]:
    with tensor.path.open("rb") as file:
        file.seek(tensor.start)
        left = tensor.bytes
        while left:
            part = file.read(min(left, _PART_BYTES))
            assert part, f"{tensor.path} is shorter than its header says"
            left -= len(part)
            yield part


def _header(tensors: dict[str, Tensor]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        entries[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.bytes],
        }
        offset += tensor.bytes
    content = json.dumps(entries, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content
