"""The tiny model in float32 on the processor, plain and as the engine holds it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from manyicl_core.base_models.load import load_base_model
from manyicl_core.contract.train_spec import LoraSpec
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.training.adapters import add_adapter, save_adapter

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
    """Writes the adapter of a seed, with weights that change every answer, and returns its folder."""
    folders: dict[int, Path] = {}

    def make(seed: int) -> Path:
        if seed not in folders:
            torch.manual_seed(seed)
            peft_model = add_adapter(load_tiny(tiny_model), "somebody/tiny-llama", LoraSpec(rank=4, alpha=8))
            for parameter in peft_model.parameters():
                if parameter.requires_grad:
                    torch.nn.init.normal_(parameter, std=0.2)
            folders[seed] = tmp_path_factory.mktemp("adapter")
            save_adapter(peft_model, folders[seed])
        return folders[seed]

    return make
