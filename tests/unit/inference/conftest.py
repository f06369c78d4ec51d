"""The tiny model in float32 on the processor, plain and as the engine holds it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from manyicl_core.base_models.load import load_base_model
from manyicl_core.inference.compilation import compile_prefix
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from manyicl_core.inference.prefix import Prefix
from manyicl_core.inference.vocabulary import Vocabulary
from manyicl_core.training.weights import save_weights
from tests.unit.inference.prefix_folder import KEY, write
from tests.unit.random_adapter import save_random_adapter

MakeAdapter = Callable[[int], Path]

# Tests run side by side, and threads that wait for each other's cores are many times slower.
torch.set_num_threads(1)


def load_tiny(folder: Path) -> PreTrainedModel:
    return load_base_model(folder, torch.device("cpu"), torch.float32)


def save_whole_model(tiny_model: Path, folder: Path, seed: int) -> Path:
    """Write a model with all weights of its own, as a job with full fine-tuning leaves it."""
    torch.manual_seed(seed)
    whole = load_tiny(tiny_model)
    for parameter in whole.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    whole.requires_grad_(True)  # what is trained is what is saved
    folder.mkdir()
    save_weights(whole, folder)
    return folder


@pytest.fixture(scope="session")
def plain(tiny_model: Path) -> PreTrainedModel:
    """What the engine's answers are compared with; nothing is ever attached to it."""
    return load_tiny(tiny_model)


@pytest.fixture(scope="session")
def base_only(tiny_model: Path) -> LanguageModel:
    """A language model that tests attach nothing to."""
    return LanguageModel(load_tiny(tiny_model))


@pytest.fixture(scope="session")
def untuned(base_only: LanguageModel) -> TunedModel:
    """The same, as one of the models to answer with."""
    return TunedModel(base_only)


@pytest.fixture
def model(tiny_model: Path) -> LanguageModel:
    """A language model of the test's own."""
    return LanguageModel(load_tiny(tiny_model))


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_model / "tokenizer.json"))


@pytest.fixture(scope="session")
def vocabulary(tiny_model: Path, base_only: LanguageModel) -> Vocabulary:
    return Vocabulary(tiny_model, base_only.vocabulary)


@pytest.fixture(scope="session")
def make_adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeAdapter:
    """Makes the random adapter of a seed once and returns its folder."""
    folders: dict[int, Path] = {}

    def make(seed: int) -> Path:
        if seed not in folders:
            folders[seed] = save_random_adapter(tiny_model, tmp_path_factory.mktemp("adapter"), seed)
        return folders[seed]

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where an engine keeps prefixes; there is none yet."""
    return tmp_path / "prefixes"


@pytest.fixture
def prefix(untuned: TunedModel) -> Prefix:
    """The prefix of ``KEY``."""
    return compile_prefix(untuned, KEY.tokens)


@pytest.fixture
def written(folder: Path, prefix: Prefix) -> Path:
    """Its file in the folder."""
    write(folder, KEY, prefix)
    [path] = folder.iterdir()
    return path
