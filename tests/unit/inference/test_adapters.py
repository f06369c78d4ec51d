"""Adapters from the artifact store: by hash, checked, and at most so many at once."""

import gc
import weakref
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from manyicl_core.inference.adapters import Adapters, DoesNotFit, UnknownAdapter
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.objects import ArtifactStore, open_store, put_weights, sha256_of, weights_key
from manyicl_core.training.weights import save_weights
from tests.unit.inference.conftest import MakeAdapter, load_tiny

TOKENS = torch.arange(30, 60).unsqueeze(0)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store(f"file://{tmp_path}/store")


def stored(store: ArtifactStore, folder: Path) -> str:
    digest = sha256_of(folder / "adapter_model.safetensors")
    store.put_folder(weights_key(digest), folder)
    return digest


def stored_whole_model(store: ArtifactStore, tiny_model: Path, folder: Path, seed: int) -> str:
    """A model with all weights of its own, as a job with full fine-tuning leaves it."""
    torch.manual_seed(seed)
    whole = load_tiny(tiny_model)
    for parameter in whole.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    whole.requires_grad_(True)  # what is trained is what is saved
    folder.mkdir()
    save_weights(whole, folder)
    return put_weights(store, folder)


def answer(model: LanguageModel) -> list[float]:
    return model.logits(model.hidden_states(TOKENS, DynamicCache())[0])[-1].tolist()


def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_adapters_take_turns_whatever_the_capacity(
    model: LanguageModel, store: ArtifactStore, make_adapter: MakeAdapter, tmp_path: Path, capacity: int
):
    adapters = Adapters(model, store, scratch(tmp_path), capacity)
    known = {digest: [] for digest in (None, *(stored(store, make_adapter(seed)) for seed in (1, 2, 3)))}
    for _ in range(2):
        for digest, answers in known.items():
            adapters.activate(digest)
            answers.append(answer(model))
            assert sum(model.attached(other) for other in known if other) <= capacity
    assert all(first == second for first, second in known.values())
    assert len({tuple(first) for first, _ in known.values()}) == 4


def test_the_least_recently_used_adapter_goes_first(
    model: LanguageModel, store: ArtifactStore, make_adapter: MakeAdapter, tmp_path: Path
):
    adapters = Adapters(model, store, scratch(tmp_path), 2)
    first, second, third = (stored(store, make_adapter(seed)) for seed in (1, 2, 3))
    for digest in (first, second, first, third):
        adapters.activate(digest)
    assert [model.attached(digest) for digest in (first, second, third)] == [True, False, True]


@pytest.mark.parametrize("name", ["0" * 64, "", "../../etc", "A" * 64, "0" * 63, "HuggingFaceTB/SmolLM2"])
def test_an_unknown_name_is_refused_and_leaves_all_as_it_was(
    model: LanguageModel, store: ArtifactStore, make_adapter: MakeAdapter, tmp_path: Path, name: str
):
    adapters = Adapters(model, store, scratch(tmp_path), 1)
    known = stored(store, make_adapter(1))
    adapters.activate(known)
    before = answer(model)
    with pytest.raises(UnknownAdapter):
        adapters.activate(name)
    assert model.attached(known)
    assert answer(model) == before


def test_a_file_with_another_hash_is_refused(
    model: LanguageModel, store: ArtifactStore, make_adapter: MakeAdapter, tmp_path: Path
):
    store.put_folder(weights_key("0" * 64), make_adapter(1))
    with pytest.raises(UnknownAdapter, match="another hash"):
        Adapters(model, store, scratch(tmp_path), 1).activate("0" * 64)
    assert not model.attached("0" * 64)


def test_no_copy_of_an_adapter_is_left_on_the_disk(
    model: LanguageModel, store: ArtifactStore, make_adapter: MakeAdapter, tmp_path: Path
):
    folder = scratch(tmp_path)
    adapters = Adapters(model, store, folder, 1)
    adapters.activate(stored(store, make_adapter(1)))
    with pytest.raises(UnknownAdapter):
        adapters.activate("0" * 64)
    assert list(folder.iterdir()) == []


def test_a_whole_model_answers_beside_the_base_and_its_adapters(
    model: LanguageModel, store: ArtifactStore, make_adapter: MakeAdapter, tiny_model: Path, tmp_path: Path
):
    whole = stored_whole_model(store, tiny_model, tmp_path / "whole", 1)
    adapters = Adapters(model, store, scratch(tmp_path), 1)
    expected = answer(LanguageModel(load_tiny(tmp_path / "whole")))
    known: dict[str | None, list[list[float]]] = {
        digest: [] for digest in (None, whole, stored(store, make_adapter(1)))
    }
    for _ in range(2):
        for digest, answers in known.items():
            answers.append(answer(adapters.activate(digest)))
    assert all(first == second for first, second in known.values())
    assert len({tuple(first) for first, _ in known.values()}) == 3
    assert known[whole][0] == expected


def test_one_whole_model_is_in_memory_at_a_time(
    model: LanguageModel, store: ArtifactStore, tiny_model: Path, tmp_path: Path
):
    first, second = (stored_whole_model(store, tiny_model, tmp_path / f"whole-{seed}", seed) for seed in (1, 2))
    adapters = Adapters(model, store, scratch(tmp_path), 1)
    held = weakref.ref(adapters.activate(first))
    assert adapters.activate(first) is held()
    adapters.activate(second)
    gc.collect()
    assert held() is None


def test_a_whole_model_without_room_is_refused_and_the_base_goes_on(
    model: LanguageModel, store: ArtifactStore, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = stored_whole_model(store, tiny_model, tmp_path / "whole", 1)
    before = answer(model)
    adapters = Adapters(model, store, scratch(tmp_path), 1)
    monkeypatch.setattr("manyicl_core.inference.adapters.free_memory", lambda _: 1000)
    with pytest.raises(DoesNotFit, match="MiB of memory beside the base model"):
        adapters.activate(whole)
    assert answer(adapters.activate(None)) == before
    assert list((tmp_path / "scratch").iterdir()) == []
    monkeypatch.undo()
    assert answer(adapters.activate(whole)) != before
