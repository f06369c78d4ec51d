"""The artifact store: created once, read by all."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import GenericError
from obstore.exceptions import NotFoundError as ObjectNotFound
from obstore.store import from_url

from manyicl_core.errors import StorageAway, StorageFull
from manyicl_core.objects import ArtifactStore, open_store, sha256_of, weights_key
from tests.s3_server import PAGE, S3Server


@pytest.fixture(params=["a folder", "S3"])
def store(request: pytest.FixtureRequest) -> ArtifactStore:
    if request.param == "a folder":
        return open_store((request.getfixturevalue("tmp_path") / "artifacts").as_uri())
    server: S3Server = request.getfixturevalue("s3_server")
    return open_store(server.new_bucket())


def test_a_store_makes_the_folder_of_its_url(tmp_path: Path):
    open_store(f"file://{tmp_path}/new%20folder").put("key", b"content")
    assert (tmp_path / "new folder" / "key").read_bytes() == b"content"


@pytest.mark.parametrize("as_file", [False, True])
def test_what_is_put_is_got_back(store: ArtifactStore, tmp_path: Path, as_file: bool):
    content = bytes(range(256)) * 10
    if as_file:
        (tmp_path / "file").write_bytes(content)
    store.put("a/b", tmp_path / "file" if as_file else content)
    assert store.get("a/b") == content
    assert b"".join(store.stream("a/b")) == content


def test_a_second_put_changes_nothing(store: ArtifactStore, tmp_path: Path):
    store.put("key", b"first")
    store.put("key", b"second")
    (tmp_path / "file").write_bytes(b"third")
    store.put("key", tmp_path / "file")
    assert store.get("key") == b"first"


def test_what_is_not_there_is_not_found(store: ArtifactStore):
    with pytest.raises(FileNotFoundError, match="a/b"):
        store.get("a/b")
    with pytest.raises(FileNotFoundError):
        list(store.stream("a/b"))


def test_a_deleted_object_is_gone_and_may_be_deleted_again(store: ArtifactStore):
    store.put("key", b"content")
    store.delete("key")
    store.delete("key")
    with pytest.raises(FileNotFoundError):
        store.get("key")
    store.put("key", b"new")
    assert store.get("key") == b"new"


def test_a_folder_comes_back_file_by_file(store: ArtifactStore, tmp_path: Path):
    source = tmp_path / "source"
    (source / "deeper").mkdir(parents=True)
    (source / "b.txt").write_bytes(b"second")
    (source / "a.txt").write_bytes(b"first")
    names = store.put_folder("key", source)
    assert names == ["a.txt", "b.txt"]
    store.get_folder("key", names, tmp_path / "target" / "deep")
    assert {path.name: path.read_bytes() for path in (tmp_path / "target" / "deep").iterdir()} == {
        "a.txt": b"first",
        "b.txt": b"second",
    }


def test_a_copy_is_made_once(store: ArtifactStore):
    store.put("a/key", b"content")
    store.put("b/key", b"other")
    store.copy("a/key", "c/key")
    store.copy("b/key", "c/key")
    assert store.get("c/key") == b"content"
    assert store.get("a/key") == b"content"
    with pytest.raises(FileNotFoundError, match="a/none"):
        store.copy("a/none", "c/none")
    assert not store.exists("c/none")


def test_what_is_too_large_for_one_copy_is_copied_in_parts(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("manyicl_core.objects._COPY_AT_ONCE", 1 << 20)
    content = os.urandom(13 * (1 << 20) + 7)
    store.put("key", content)
    store.copy("key", "other/key")
    assert store.get("other/key") == content


def test_streams_of_the_store_are_stored_as_one(store: ArtifactStore):
    contents = [os.urandom(size) for size in (7 << 20, 0, 6 << 20)]
    for number, content in enumerate(contents):
        store.put(f"parts/{number}", content)
    store.put_stream("whole", chain.from_iterable(store.stream(f"parts/{number}") for number in range(3)))
    assert store.get("whole") == b"".join(contents)


def test_all_of_a_stream_is_stored_or_nothing(store: ArtifactStore):
    def broken() -> Iterator[bytes]:
        yield from [bytes(1 << 20)] * 12
        raise ValueError("the line is down")

    with pytest.raises(ValueError, match="the line is down"):
        store.put_stream("a/key", broken())
    assert store.names("a") == []


@pytest.mark.parametrize("size", [0, 1, (5 << 20) - 1, 5 << 20, (5 << 20) + 1, 10 << 20, (17 << 20) + 3])
@pytest.mark.parametrize("kind", ["file", "stream"])
def test_objects_of_every_size_come_back(store: ArtifactStore, tmp_path: Path, size: int, kind: str):
    content = os.urandom(size)
    if kind == "file":
        (tmp_path / "file").write_bytes(content)
        store.put("key", tmp_path / "file")
    else:
        store.put_stream("key", (content[start : start + 99_999] for start in range(0, size, 99_999)))
    assert store.size("key") == size
    assert store.get("key") == content
    assert b"".join(store.stream("key")) == content
    store.copy("key", "other")
    assert store.get("other") == content


def test_a_large_file_changes_nothing_that_is_there(store: ArtifactStore, tmp_path: Path):
    store.put("key", b"first")
    (tmp_path / "file").write_bytes(bytes(17 << 20))
    store.put("key", tmp_path / "file")
    assert store.get("key") == b"first"


def test_of_many_writers_at_once_one_creates(store: ArtifactStore):
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda number: store.put("key", bytes([number]) * 1000), range(8)))
        first = store.get("key")
        list(writers.map(lambda number: store.put("key", bytes([number]) * 1000), range(8)))
    assert store.get("key") == first
    assert len(set(first)) == 1


def test_a_folders_names_are_its_own_also_in_many_pages(store: ArtifactStore):
    names = [f"{number:03}" for number in range(2 * PAGE + 3)]
    for name in reversed(names):
        store.put(f"a/b/{name}", b"")
    store.put("a/bc", b"not in it")
    store.put("a/bd/x", b"nor this")
    assert store.names("a/b") == names
    assert store.names("a/none") == []


@pytest.mark.parametrize("name", ["a b", "a#b", "a?b&c=d", "a+b", "é", "a:b@1", "[a]"])
def test_names_of_any_characters_are_kept(store: ArtifactStore, name: str):
    store.put(f"key/{name}", b"content")
    store.copy(f"key/{name}", f"other/{name}")
    assert store.names("key") == store.names("other") == [name]
    assert store.get(f"other/{name}") == b"content"
    store.delete(f"key/{name}")
    assert not store.exists(f"key/{name}")


def test_each_part_of_a_stream_is_a_request_of_its_own(store: ArtifactStore):
    """A request ends after 30 s, and a slow reader's object does not."""
    store.put_stream("key", [os.urandom(9 << 20)])
    parts = store.stream("key")
    assert next(parts)
    store.delete("key")
    with pytest.raises(FileNotFoundError, match="key"):
        next(parts)


def test_a_large_object_that_cannot_be_ended_is_not_missing(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise ObjectNotFound("<Code>NoSuchUpload</Code>")

    monkeypatch.setattr(obstore, "put", fail)
    with pytest.raises(StorageAway):
        store.put_stream("key", [bytes(6 << 20)])


def test_a_store_that_refuses_says_so_and_has_nothing_missing(s3_server: S3Server):
    unknown_keys = ArtifactStore(from_url(s3_server.new_bucket(), config={"secret_access_key": "another"}))
    no_bucket = open_store("s3://no-such-bucket")
    for store in (unknown_keys, no_bucket):
        for ask in (
            lambda store: store.put("key", b"content"),
            lambda store: store.put_stream("key", [b"content"]),
            lambda store: store.put_stream("key", [bytes(6 << 20)]),
            lambda store: store.get("key"),
            lambda store: store.delete("key"),
            lambda store: store.names("key"),
        ):
            with pytest.raises(StorageAway):
                ask(store)
    with pytest.raises(StorageAway, match="refuses this service"):
        unknown_keys.exists("key")


def test_a_folder_with_a_missing_file_is_not_found(store: ArtifactStore, tmp_path: Path):
    store.put("key/a.txt", b"first")
    with pytest.raises(FileNotFoundError):
        store.get_folder("key", ["a.txt", "b.txt"], tmp_path / "target")


def test_an_adapter_lies_under_the_hash_of_its_file(tmp_path: Path):
    file = tmp_path / "file"
    file.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert sha256_of(file) == digest
    assert digest in weights_key(digest)


def test_a_folder_goes_with_its_last_object(tmp_path: Path):
    store = open_store((tmp_path / "artifacts").as_uri())
    for name in ("one", "two"):
        store.put(f"contexts/a/{name}", b"x")
    store.delete("contexts/a/one")
    assert store.names("contexts/a") == ["two"]
    store.delete("contexts/a/two")
    assert list((tmp_path / "artifacts").iterdir()) == []
    assert store.names("contexts/a") == []
    store.put("contexts/a/one", b"y")
    assert store.get("contexts/a/one") == b"y"


@pytest.mark.parametrize(
    ("reason", "kind"), [("error sending request", StorageAway), ("No space left on device", StorageFull)]
)
@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.put("key", b"content"),
        lambda store: store.put_stream("key", [b"content"]),
        lambda store: store.exists("key"),
        lambda store: store.get("key"),
        lambda store: list(store.stream("key")),
        lambda store: store.delete("key"),
        lambda store: store.copy("key", "other"),
        lambda store: store.names("key"),
    ],
)
def test_a_store_that_fails_is_away_or_full(
    store: ArtifactStore,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[ArtifactStore], object],
    reason: str,
    kind: type[Exception],
):
    def fail(*_: object, **__: object) -> None:
        raise GenericError(reason)

    for name in ("put", "head", "get", "get_range", "delete", "copy", "list"):
        monkeypatch.setattr(obstore, name, fail)
    with pytest.raises(kind):
        ask(store)
