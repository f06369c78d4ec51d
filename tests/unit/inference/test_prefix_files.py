"""Prefixes on disk: read back bit by bit, or not at all."""

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from manyicl_core.inference import prefix_files
from manyicl_core.inference.prefix import Prefix, PrefixKey
from manyicl_core.inference.prefix_files import base_name
from manyicl_core.inference.prefix_store import PrefixStore
from tests.unit.inference.driving import found
from tests.unit.inference.prefix_folder import KEY, assert_same_bits, files_in, write


def test_a_prefix_is_read_back_bit_by_bit_after_a_restart(folder: Path, written: Path, prefix: Prefix):
    files = files_in(folder)
    size = files.size_bytes(KEY)
    assert size is not None and prefix.size_bytes <= size < prefix.size_bytes + 2000
    assert_same_bits(files.read(KEY), prefix)


def test_a_prefix_of_bfloat16_is_read_back_bit_by_bit(folder: Path, prefix: Prefix):
    halves = Prefix(prefix.tokens, tuple((keys.bfloat16(), values.bfloat16()) for keys, values in prefix.layers))
    write(folder, KEY, halves)
    assert_same_bits(files_in(folder).read(KEY), halves)


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, adapter=None),
        replace(KEY, adapter="other"),
        replace(KEY, salt=""),
        replace(KEY, salt="other"),
        replace(KEY, tokens=KEY.tokens[:-1]),
        replace(KEY, tokens=(*KEY.tokens, 5)),
    ],
)
def test_nobody_elses_prefix_is_found(folder: Path, written: Path, other: PrefixKey):
    assert files_in(folder).size_bytes(other) is None


def test_a_prefix_of_another_base_is_not_found(folder: Path, written: Path):
    assert files_in(folder, "another base").size_bytes(KEY) is None


def test_a_base_is_known_by_its_weights_its_numbers_and_the_encoder(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def copied(name: str, changed: str | None = None) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in ("config.json", "model.safetensors"):
            content = (tiny_model / file).read_bytes()
            (folder / file).write_bytes(content + b" " if file == changed else content)
        return folder

    name = base_name(tiny_model, torch.float32, False)
    assert base_name(copied("same"), torch.float32, False) == name
    names = [name, base_name(tiny_model, torch.bfloat16, False)]
    names += [
        base_name(copied(f"{file}-changed", file), torch.float32, False)
        for file in ("config.json", "model.safetensors")
    ]
    monkeypatch.setattr("manyicl_core.inference.prefix_files.ENCODER_VERSION", 10**6)
    names.append(base_name(tiny_model, torch.float32, False))
    names.append(base_name(tiny_model, torch.float32, True))
    assert len(set(names)) == 6


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def write_something_else(path: Path) -> None:
    save_file({"weights": torch.ones(3)}, path)


def lose_the_hash(path: Path) -> None:
    save_file(load_file(path), path)


def swap_for_another_prefix(path: Path) -> None:
    """A whole file, of another tenant, under this one's name."""
    aside = path.parent.parent / "aside"
    tensors = load_file(path)
    layers = tuple(
        (tensors[f"{number:04}.keys"] + 1, tensors[f"{number:04}.values"]) for number in range(len(tensors) // 2)
    )
    write(aside, replace(KEY, salt="other"), Prefix(KEY.tokens, layers))
    [other] = aside.iterdir()
    other.replace(path)


@pytest.mark.parametrize(
    "spoil", [change_a_byte, cut_short, empty, write_something_else, lose_the_hash, swap_for_another_prefix]
)
def test_a_file_that_is_not_as_it_was_written_is_not_used_and_removed(
    folder: Path, written: Path, spoil: Callable[[Path], None]
):
    spoil(written)
    store = PrefixStore(1 << 20, files_in(folder))
    assert found(store, KEY) is None
    assert store.size_bytes == 0
    assert not written.exists()


def test_a_file_that_has_gone_is_no_prefix(folder: Path, written: Path):
    files = files_in(folder)
    written.unlink()
    assert files.size_bytes(KEY) is None
    assert files.read(KEY) is None


def test_a_disk_without_room_costs_only_the_file(folder: Path, prefix: Prefix, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("manyicl_core.inference.prefix_files.save_file", full)
        write(folder, KEY, prefix)
    assert list(folder.iterdir()) == []
    write(folder, KEY, prefix)
    assert_same_bits(files_in(folder).read(KEY), prefix)


def sizes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_a_slow_disk_holds_few_prefixes_in_memory(folder: Path, prefix: Prefix, monkeypatch: pytest.MonkeyPatch):
    works = threading.Event()

    def save_slowly(*file: Any) -> None:
        works.wait(60)
        save_file(*file)

    monkeypatch.setattr(prefix_files, "save_file", save_slowly)
    files = files_in(folder)
    keys = [replace(KEY, salt=str(number)) for number in range(20)]
    for key in keys:
        files.write(key, prefix)
    works.set()
    files.wait()
    written = [key for key in keys if files.size_bytes(key) is not None]
    assert written == keys[:8]
    # There is room again.
    files.write(keys[-1], prefix)
    files.close()
    assert files.size_bytes(keys[-1]) is not None


def test_the_longest_unread_file_makes_room_for_the_next(folder: Path, prefix: Prefix):
    keys = [replace(KEY, salt=str(number)) for number in range(4)]
    write(folder, keys[0], prefix)
    budget = 3 * sizes(folder) + 100
    files = files_in(folder, budget_bytes=budget)
    for age, key in zip((300, 200, 100), keys[:3], strict=True):
        write(folder, key, prefix)
        for path in folder.iterdir():
            if path.stat().st_mtime > 1000:
                os.utime(path, (1000 - age, 1000 - age))
    assert files.read(keys[0]) is not None
    write(folder, keys[3], prefix, budget_bytes=budget)
    assert [files.size_bytes(key) is not None for key in keys] == [True, False, True, True]
    assert sizes(folder) <= budget


def test_a_prefix_larger_than_the_disk_budget_is_not_written(folder: Path, prefix: Prefix):
    small = prefix.start(3)
    write(folder, replace(KEY, tokens=small.tokens), small)
    kept = sizes(folder)
    write(folder, KEY, prefix, budget_bytes=kept + 100)
    assert sizes(folder) == kept


def test_a_forgotten_file_is_not_read_while_it_waits_to_be_deleted(
    folder: Path, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
):
    works = threading.Event()

    def save_slowly(*file: Any) -> None:
        works.wait(60)
        save_file(*file)

    files = files_in(folder)
    files.write(KEY, prefix)
    files.wait()
    monkeypatch.setattr(prefix_files, "save_file", save_slowly)
    files.write(replace(KEY, salt="other"), prefix)
    assert files.size_bytes(KEY) is not None
    files.delete(KEY)
    assert files.size_bytes(KEY) is None
    works.set()
    files.write(KEY, prefix)
    files.wait()
    assert files.size_bytes(KEY) is not None, "it was compiled again"
    files.close()


def test_a_file_of_another_user_is_read(folder: Path, written: Path, prefix: Prefix, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prefix_files.os, "utime", refuse)
    assert_same_bits(files_in(folder).read(KEY), prefix)


def test_a_file_that_cannot_be_deleted_is_not_used(folder: Path, written: Path, monkeypatch: pytest.MonkeyPatch):
    files = files_in(folder)
    monkeypatch.setattr(Path, "unlink", refuse)
    files.delete(KEY)
    files.wait()
    assert written.exists() and files.size_bytes(KEY) is None
    assert list(files.starts(replace(KEY, tokens=(*KEY.tokens, 5)))) == []


def test_a_folder_that_cannot_be_read_holds_nothing_up(folder: Path, written: Path, monkeypatch: pytest.MonkeyPatch):
    longer = replace(KEY, tokens=(*KEY.tokens, 5))
    files = files_in(folder)
    assert list(files.starts(longer)) == [KEY]
    monkeypatch.setattr(Path, "glob", refuse)
    assert list(files.starts(longer)) == []


def test_on_a_disk_that_others_fill_the_longest_unread_file_makes_room(
    folder: Path, written: Path, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
):
    usage = shutil.disk_usage(folder)._replace(free=prefix.size_bytes - 1)
    monkeypatch.setattr(prefix_files.shutil, "disk_usage", lambda _: usage)
    new = replace(KEY, salt="other")
    write(folder, new, prefix)
    assert files_in(folder).size_bytes(KEY) is None
    assert_same_bits(files_in(folder).read(new), prefix)


def refuse(*_: object, **__: object) -> None:
    raise PermissionError("not yours")
