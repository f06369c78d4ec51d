"""A store and its files: what was evicted, or is of another engine, comes back beside other work."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from manyicl_core.inference import prefix_files
from manyicl_core.inference.prefix import Prefix, PrefixKey
from manyicl_core.inference.prefix_store import PrefixStore
from tests.unit.inference.driving import found
from tests.unit.inference.prefix_folder import KEY, assert_same_bits, files_in, write


def put(store: PrefixStore, key: PrefixKey, prefix: Prefix) -> None:
    assert store.set_aside(prefix.size_bytes)
    store.put(key, prefix)
    store.release(key)


def test_a_prefix_outlives_its_store(folder: Path, prefix: Prefix):
    files = files_in(folder)
    put(PrefixStore(1 << 20, files), KEY, prefix)
    files.close()
    store = PrefixStore(1 << 20, files_in(folder))
    assert KEY not in store
    assert_same_bits(found(store, KEY), prefix)
    assert store.size_bytes == prefix.size_bytes
    assert store.hold(KEY) is store.hold(KEY), "the second time from memory"


def test_an_evicted_prefix_comes_back_from_disk(folder: Path, prefix: Prefix):
    files = files_in(folder)
    store = PrefixStore(1 << 20, files)
    put(store, KEY, prefix)
    files.wait()
    store.shrink()
    assert store.size_bytes == 0
    assert_same_bits(found(store, KEY), prefix)


def test_what_is_read_from_disk_takes_its_part_of_the_budget(folder: Path, written: Path, prefix: Prefix):
    small = PrefixStore(prefix.size_bytes - 1, files_in(folder))
    assert found(small, KEY) is None
    assert small.size_bytes == 0
    assert written.exists()
    enough = PrefixStore(2 * prefix.size_bytes, files_in(folder))
    assert enough.set_aside(prefix.size_bytes + 1)
    assert found(enough, KEY) is None, "another has the room"
    enough.give_back(prefix.size_bytes + 1)
    put(enough, replace(KEY, salt="other"), prefix)
    assert_same_bits(found(enough, KEY), prefix)
    assert enough.size_bytes <= enough.budget_bytes


def test_a_forgotten_prefix_is_gone_from_the_disk_too(folder: Path, prefix: Prefix):
    files = files_in(folder)
    store = PrefixStore(1 << 20, files)
    put(store, KEY, prefix)
    store.forget(KEY)
    files.close()
    assert list(folder.iterdir()) == []
    assert found(store, KEY) is None


class HeldBack:
    """Files of which none is read before it may be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_be_read = threading.Event()
        self.read = threading.Event()

        def read_late(path: str, framework: str) -> Any:
            assert self.may_be_read.wait(30)
            return safe_open(path, framework=framework)

        monkeypatch.setattr(prefix_files, "safe_open", read_late)


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> HeldBack:
    return HeldBack(monkeypatch)


def test_a_file_is_read_once_beside_other_work_in_room_that_is_set_aside(
    folder: Path, written: Path, prefix: Prefix, held_back: HeldBack
):
    store = PrefixStore(1 << 20, files_in(folder))
    assert store.comes(KEY, held_back.read.set)
    assert store.comes(KEY, held_back.read.set), "it is not begun again"
    assert store.hold(KEY) is None
    assert KEY not in store
    assert store.size_bytes == written.stat().st_size
    held_back.may_be_read.set()
    assert held_back.read.wait(30)
    assert not store.comes(KEY, held_back.read.set)
    assert_same_bits(store.hold(KEY), prefix)
    assert store.size_bytes == prefix.size_bytes


def test_what_was_read_for_nobody_makes_room(folder: Path, written: Path, prefix: Prefix, held_back: HeldBack):
    size = written.stat().st_size
    store = PrefixStore(size, files_in(folder))
    assert store.comes(KEY, held_back.read.set)
    assert not store.set_aside(size), "it is still being read"
    held_back.may_be_read.set()
    assert held_back.read.wait(30)
    assert store.set_aside(size)
    assert KEY not in store


def test_what_is_forgotten_while_it_is_read_is_not_kept(folder: Path, written: Path, held_back: HeldBack):
    files = files_in(folder)
    store = PrefixStore(1 << 20, files)
    assert store.comes(KEY, held_back.read.set)
    store.forget(replace(KEY, tokens=(*KEY.tokens, 5)))
    held_back.may_be_read.set()
    assert held_back.read.wait(30)
    files.wait()
    assert not store.comes(KEY, held_back.read.set)
    assert store.hold(KEY) is None
    assert store.size_bytes == 0
    assert not written.exists()


def test_a_device_without_memory_costs_only_the_file(folder: Path, written: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(prefix_files, "_layers", full)
    files = files_in(folder)
    store = PrefixStore(1 << 20, files)
    read = threading.Event()
    assert store.comes(KEY, read.set)
    assert read.wait(30)
    assert not store.comes(KEY, read.set)
    assert not store.comes(KEY, read.set), "it would not end"
    assert store.size_bytes == 0
    files.close()
    assert not written.exists()


def test_what_is_made_while_it_is_read_is_kept_once(folder: Path, written: Path, prefix: Prefix, held_back: HeldBack):
    store = PrefixStore(1 << 20, files_in(folder))
    assert store.comes(KEY, held_back.read.set)
    assert store.set_aside(prefix.size_bytes)
    made = store.put(KEY, prefix)
    held_back.may_be_read.set()
    assert held_back.read.wait(30)
    assert not store.comes(replace(KEY, salt="other"), bool)
    store.shrink()
    assert store.hold(KEY) is made
    assert store.size_bytes == prefix.size_bytes
    store.release(KEY)
    store.release(KEY)
    store.shrink()
    assert store.size_bytes == 0


def test_few_files_are_read_at_a_time(folder: Path, prefix: Prefix, held_back: HeldBack):
    keys = [replace(KEY, salt=str(number)) for number in range(5)]
    for key in keys:
        write(folder, key, prefix)
    size = sum(path.stat().st_size for path in folder.iterdir()) // 5
    store = PrefixStore(1 << 20, files_in(folder))
    assert [store.comes(key, held_back.read.set) for key in keys] == [True] * 5
    assert store.size_bytes == 2 * size
    held_back.may_be_read.set()
    left = set(keys)
    while left:
        assert held_back.read.wait(30)
        held_back.read.clear()
        left -= {key for key in keys if not store.comes(key, held_back.read.set)}
    assert all(store.hold(key) for key in keys)


def test_what_was_read_for_nobody_leaves_when_memory_ends(folder: Path, written: Path, held_back: HeldBack):
    store = PrefixStore(1 << 20, files_in(folder))
    assert store.comes(KEY, held_back.read.set)
    held_back.may_be_read.set()
    assert held_back.read.wait(30)
    store.shrink()
    assert store.size_bytes == 0


def test_a_file_that_cannot_be_read_now_leaves_no_room_set_aside(
    folder: Path, written: Path, monkeypatch: pytest.MonkeyPatch
):
    files = files_in(folder)
    store = PrefixStore(1 << 20, files)

    def no_thread(_: PrefixKey) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(files, "fetch", no_thread)
    with pytest.raises(RuntimeError):
        store.comes(KEY, bool)
    assert store.size_bytes == 0
