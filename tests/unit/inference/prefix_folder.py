"""A folder of prefixes, as an engine leaves it."""

from pathlib import Path

import torch

from manyicl_core.inference.prefix import Prefix, PrefixKey
from manyicl_core.inference.prefix_files import PrefixFiles

CPU = torch.device("cpu")
KEY = PrefixKey("adapter", "tenant", tuple(range(30, 60)))


def files_in(folder: Path, base: str = "base", budget_bytes: int = 1 << 20) -> PrefixFiles:
    return PrefixFiles(folder, budget_bytes, base, CPU)


def write(folder: Path, key: PrefixKey, prefix: Prefix, base: str = "base", budget_bytes: int = 1 << 20) -> None:
    """Write a prefix as an engine does that ends right after it."""
    files = files_in(folder, base, budget_bytes)
    files.write(key, prefix)
    files.close()


def assert_same_bits(found: Prefix | None, prefix: Prefix) -> None:
    assert found is not None and found.tokens == prefix.tokens
    for one, other in zip(found.layers, prefix.layers, strict=True):
        for part, expected in zip(one, other, strict=True):
            assert part.dtype == expected.dtype and torch.equal(part, expected)
