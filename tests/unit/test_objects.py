"""The artifact store: created once, read by all."""

import hashlib
import os
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import GenericError

from manyicl_core.errors import StorageAway, StorageFull
from manyicl_core.objects import ArtifactStore, open_store, sha256_of, weights_key
from tests.s3_server import S3Server


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

    for name in ("put", "head", "get", "delete", "copy", "list"):
        monkeypatch.setattr(obstore, name, fail)
    with pytest.raises(kind):
        ask(store)
