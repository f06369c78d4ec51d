"""Weights from the artifact store: by hash, checked, and at most so many at once."""

import gc
import threading
import weakref
from collections.abc import Collection
from itertools import combinations
from pathlib import Path

import pytest
import torch

from manyicl_core.inference.adapters import Adapters
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from manyicl_core.inference.requests import OutOfMemory, StorageAway, UnknownAdapter
from manyicl_core.objects import ArtifactStore, fetch_weights, open_store, put_weights, weights_key
from tests.unit.inference.conftest import MakeAdapter, load_tiny, save_whole_model

TOKENS = torch.arange(30, 60)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store(f"file://{tmp_path}/store")


def ask(adapters: Adapters, sha256: str | None, in_use: Collection[str] = ()) -> TunedModel | None:
    """What is there once the weights have been fetched."""
    fetched = threading.Event()
    model = adapters.get(sha256, in_use, fetched.set)
    if model is None and fetched.wait(30):
        return adapters.get(sha256, in_use, fetched.set)
    return model


def get(adapters: Adapters, sha256: str | None) -> TunedModel:
    model = ask(adapters, sha256)
    assert model is not None
    return model


def answer(model: TunedModel) -> torch.Tensor:
    return model.language_model.logits(model.states(TOKENS))[-1]


def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def assert_told_apart(known: dict[str | None, list[torch.Tensor]]) -> None:
    """The same weights answer the same at any time, and all others differently."""
    for answers in known.values():
        for later in answers[1:]:
            torch.testing.assert_close(later, answers[0])
    for one, other in combinations(known.values(), 2):
        assert not torch.allclose(one[0], other[0], atol=0.01)


def test_weights_that_nobody_claims_do_not_fill_the_disk(
    model: LanguageModel, store: ArtifactStore, make_adapter: MakeAdapter, tmp_path: Path
):
    folder = scratch(tmp_path)
    adapters = Adapters(model, store, folder, 2)
    digests = [put_weights(store, make_adapter(seed)) for seed in range(1, 9)]
    for digest in digests:
        fetched = threading.Event()
        assert adapters.get(digest, (), fetched.set) is None
        assert fetched.wait(30)
    assert {path.name for path in folder.iterdir()} == set(digests[-5:])
    assert answer(get(adapters, digests[0])).isfinite().all()


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_adapters_take_turns_whatever_the_capacity(
    model: LanguageModel, store: ArtifactStore, make_adapter: MakeAdapter, tmp_path: Path, capacity: int
):
    adapters = Adapters(model, store, scratch(tmp_path), capacity)
    known: dict[str | None, list[torch.Tensor]] = {
        digest: [] for digest in (None, *(put_weights(store, make_adapter(seed)) for seed in (1, 2, 3)))
    }
    for _ in range(2):
        for digest, answers in known.items():
            answers.append(answer(get(adapters, digest)))
            assert sum(model.attached(other) for other in known if other) <= capacity
    assert_told_apart(known)


def test_the_least_recently_used_adapter_goes_first(
    model: LanguageModel, store: ArtifactStore, make_adapter: MakeAdapter, tmp_path: Path
):
    adapters = Adapters(model, store, scratch(tmp_path), 2)
    first, second, third = (put_weights(store, make_adapter(seed)) for seed in (1, 2, 3))
    for digest in (first, second, first, third):
        get(adapters, digest)
    assert [model.attached(digest) for digest in (first, second, third)] == [True, False, True]


def test_an_adapter_in_use_stays_and_the_next_one_waits(
    model: LanguageModel, store: ArtifactStore, make_adapter: MakeAdapter, tmp_path: Path
):
    adapters = Adapters(model, store, scratch(tmp_path), 2)
    first, second, third = (put_weights(store, make_adapter(seed)) for seed in (1, 2, 3))
    get(adapters, first)
    get(adapters, second)
    assert ask(adapters, third, in_use={first, second}) is None
    assert model.attached(first) and model.attached(second)
    assert ask(adapters, third, in_use={first}) == TunedModel(model, third)
    assert [model.attached(digest) for digest in (first, second, third)] == [True, False, True]


def test_weights_are_fetched_beside_the_engines_work(
    model: LanguageModel, store: ArtifactStore, make_adapter: MakeAdapter, tmp_path: Path, monkeypatch
):
    adapters = Adapters(model, store, scratch(tmp_path), 1)
    digest = put_weights(store, make_adapter(1))
    released, woken = threading.Event(), threading.Event()
    names = ArtifactStore.names

    def slow(self: ArtifactStore, key: str) -> list[str]:
        assert released.wait(30)
        return names(self, key)

    monkeypatch.setattr(ArtifactStore, "names", slow)
    assert adapters.get(digest, (), woken.set) is None
    assert adapters.get(digest, (), woken.set) is None
    assert not woken.is_set()
    released.set()
    assert woken.wait(30)
    assert adapters.get(digest, (), woken.set) == TunedModel(model, digest)


@pytest.mark.parametrize("name", ["0" * 64, "", "../../etc", "A" * 64, "0" * 63, "HuggingFaceTB/SmolLM2"])
def test_an_unknown_name_is_refused_and_leaves_all_as_it_was(
    model: LanguageModel, store: ArtifactStore, make_adapter: MakeAdapter, tmp_path: Path, name: str
):
    adapters = Adapters(model, store, scratch(tmp_path), 1)
    known = put_weights(store, make_adapter(1))
    before = answer(get(adapters, known))
    for _ in range(2):
        with pytest.raises(UnknownAdapter):
            ask(adapters, name)
    assert model.attached(known)
    torch.testing.assert_close(answer(get(adapters, known)), before)


def test_a_file_with_another_hash_is_refused(
    model: LanguageModel, store: ArtifactStore, make_adapter: MakeAdapter, tmp_path: Path
):
    store.put_folder(weights_key("0" * 64), make_adapter(1))
    with pytest.raises(UnknownAdapter, match="another hash"):
        ask(Adapters(model, store, scratch(tmp_path), 1), "0" * 64)
    assert not model.attached("0" * 64)


def test_a_store_that_does_not_answer_is_asked_again_the_next_time(
    model: LanguageModel, store: ArtifactStore, make_adapter: MakeAdapter, tmp_path: Path
):
    adapters = Adapters(model, store, scratch(tmp_path), 1)
    digest = put_weights(store, make_adapter(1))

    def away(key: str) -> list[str]:
        raise ConnectionError(key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "names", away)
        with pytest.raises(StorageAway, match="ConnectionError"):
            ask(adapters, digest)
    assert get(adapters, digest) == TunedModel(model, digest)


def test_no_copy_of_an_adapter_is_left_on_the_disk(
    model: LanguageModel, store: ArtifactStore, make_adapter: MakeAdapter, tmp_path: Path
):
    folder = scratch(tmp_path)
    adapters = Adapters(model, store, folder, 1)
    get(adapters, put_weights(store, make_adapter(1)))
    with pytest.raises(UnknownAdapter):
        ask(adapters, "0" * 64)
    assert list(folder.iterdir()) == []


def test_a_whole_model_answers_beside_the_base_and_its_adapters(
    model: LanguageModel, store: ArtifactStore, make_adapter: MakeAdapter, tiny_model: Path, tmp_path: Path
):
    whole = put_weights(store, save_whole_model(tiny_model, tmp_path / "whole", 1))
    adapters = Adapters(model, store, scratch(tmp_path), 1)
    known: dict[str | None, list[torch.Tensor]] = {
        digest: [] for digest in (None, whole, put_weights(store, make_adapter(1)))
    }
    for _ in range(2):
        for digest, answers in known.items():
            answers.append(answer(get(adapters, digest)))
    assert_told_apart(known)
    expected = answer(TunedModel(LanguageModel(load_tiny(tmp_path / "whole"))))
    torch.testing.assert_close(known[whole][0], expected)


def test_one_whole_model_is_in_memory_at_a_time(
    model: LanguageModel, store: ArtifactStore, tiny_model: Path, tmp_path: Path
):
    first, second = (
        put_weights(store, save_whole_model(tiny_model, tmp_path / f"whole-{seed}", seed)) for seed in (1, 2)
    )
    adapters = Adapters(model, store, scratch(tmp_path), 1)
    held = weakref.ref(get(adapters, first).language_model)
    assert get(adapters, first).language_model is held()
    assert ask(adapters, second, in_use={first}) is None
    assert get(adapters, first).language_model is held()
    get(adapters, second)
    gc.collect()
    assert held() is None


def test_a_whole_model_without_room_is_refused_and_the_base_goes_on(
    model: LanguageModel, store: ArtifactStore, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = put_weights(store, save_whole_model(tiny_model, tmp_path / "whole", 1))
    before = answer(TunedModel(model))
    adapters = Adapters(model, store, scratch(tmp_path), 1)
    monkeypatch.setattr("manyicl_core.inference.adapters.free_memory", lambda _: 1000)
    with pytest.raises(OutOfMemory, match="MiB of memory beside the base model"):
        ask(adapters, whole)
    torch.testing.assert_close(answer(get(adapters, None)), before)
    assert list((tmp_path / "scratch").iterdir()) == []
    monkeypatch.undo()
    assert not torch.allclose(answer(get(adapters, whole)), before, atol=0.01)


def test_few_weights_are_fetched_at_a_time(
    model: LanguageModel,
    store: ArtifactStore,
    make_adapter: MakeAdapter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    answers, begun = threading.Event(), []

    def fetch_slowly(store: ArtifactStore, sha256: str, folder: Path) -> None:
        begun.append(sha256)
        assert answers.wait(30)
        fetch_weights(store, sha256, folder)

    monkeypatch.setattr("manyicl_core.inference.adapters.fetch_weights", fetch_slowly)
    adapters = Adapters(model, store, scratch(tmp_path), 8)
    digests = [put_weights(store, make_adapter(seed)) for seed in range(1, 8)]
    fetched = threading.Event()
    for digest in digests:
        assert adapters.get(digest, (), fetched.set) is None
    answers.set()
    left = set(digests)
    while left:
        assert fetched.wait(30)
        fetched.clear()
        assert len(begun) <= len(digests) - len(left) + 4
        left -= {digest for digest in left if adapters.get(digest, (), fetched.set) is not None}
