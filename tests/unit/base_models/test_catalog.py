"""Which base model an installation serves, by its settings alone."""

from pathlib import Path

import pytest

from manyicl_core.base_models import catalog
from manyicl_core.base_models.catalog import base_model_folder, known_base_models
from manyicl_core.settings import DEFAULT_BASE_MODEL, get_settings


@pytest.fixture
def serves(monkeypatch: pytest.MonkeyPatch):
    """The id that these settings give, and the folder."""

    def served(**settings: str) -> tuple[str, Path]:
        for name in ("BASE_MODEL", "MODEL_FOLDER", "MODEL_CACHE"):
            monkeypatch.setenv(f"MANYICL_{name}", settings.get(name, ""))  # an empty one is none
        get_settings.cache_clear()
        entry = known_base_models()[0]
        return entry.id, base_model_folder(entry)

    yield served
    monkeypatch.undo()
    get_settings.cache_clear()


@pytest.mark.parametrize(
    ("folder", "id_"),
    [
        ("granite-350m", "granite-350m"),
        ("HuggingFaceTB--SmolLM2-360M", "HuggingFaceTB/SmolLM2-360M"),
        ("models--Qwen--Qwen3-0.6B/snapshots/c1899de", "Qwen/Qwen3-0.6B"),
        ("my model (tuned)", "my-model-tuned-"),
    ],
)
def test_a_folder_alone_gives_its_name_to_the_model(serves, tmp_path: Path, folder: str, id_: str):
    assert serves(MODEL_FOLDER=str(tmp_path / folder)) == (id_, tmp_path / folder)
    assert serves(MODEL_FOLDER=str(tmp_path / folder), BASE_MODEL="us/ours") == ("us/ours", tmp_path / folder)


def test_without_a_folder_it_is_the_one_named_or_the_default(serves, tmp_path: Path):
    cache = {"MODEL_CACHE": str(tmp_path)}
    assert serves(**cache) == (DEFAULT_BASE_MODEL, tmp_path / "HuggingFaceTB--SmolLM2-135M-Instruct")
    assert serves(**cache, BASE_MODEL="us/ours") == ("us/ours", tmp_path / "us--ours")


def test_known_files_keep_their_id_in_whatever_folder(serves, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert serves(MODEL_FOLDER=str(tmp_path))[0] == tmp_path.name
    catalog._id_of.cache_clear()
    digest = "9dd9ed1ccaeb1ee81bd92e7a0b1a7df4e51b85b5a0a8dfbd8a1c6f0ee9e7d8a0"
    monkeypatch.setattr(catalog, "_WEIGHTS_BYTES", 7)
    monkeypatch.setattr(catalog, "sha256_of", lambda _: digest)
    assert serves(MODEL_FOLDER=str(tmp_path))[0] == tmp_path.name
    catalog._id_of.cache_clear()
    monkeypatch.setattr(catalog, "sha256_of", lambda _: sorted(catalog.SMOLLM2_135M.files)[0])
    assert serves(MODEL_FOLDER=str(tmp_path))[0] == DEFAULT_BASE_MODEL
