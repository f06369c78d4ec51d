"""The tiny model in float32 on the processor, plain and as the engine holds it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from manyicl_core.base_models.load import load_base_model
from manyicl_core.inference.language_model import LanguageModel
from tests.unit.random_adapter import save_random_adapter

MakeAdapter = Callable[[int], Path]

# Tests run side by side, and threads that wait for each other's cores are many times slower.
torch.set_num_threads(1)


def load_tiny(folder: Path) -> PreTrainedModel:
    return load_base_model(folder, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def plain(tiny_model: Path) -> PreTrainedModel:
    """What the engine's answers are compared with; nothing is ever attached to it."""
    return load_tiny(tiny_model)


@pytest.fixture(scope="session")
def base_only(tiny_model: Path) -> LanguageModel:
    """A language model that tests attach nothing to."""
    return LanguageModel(load_tiny(tiny_model))


@pytest.fixture
def model(tiny_model: Path) -> LanguageModel:
    """A language model of the test's own."""
    return LanguageModel(load_tiny(tiny_model))


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_model / "tokenizer.json"))


@pytest.fixture(scope="session")
def make_adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeAdapter:
    """Makes the random adapter of a seed once and returns its folder."""
    folders: dict[int, Path] = {}

    def make(seed: int) -> Path:
        if seed not in folders:
            folders[seed] = save_random_adapter(tiny_model, tmp_path_factory.mktemp("adapter"), seed)
        return folders[seed]

    return make
