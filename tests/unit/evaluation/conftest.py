"""Evaluations of the tiny model: in float32, on the processor."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from manyicl_core.base_models.load import load_base_model
from manyicl_core.evaluation import run
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from tests.unit.random_adapter import save_random_adapter

MakeAdapter = Callable[[int], Path]

# Tests run side by side, and threads that wait for each other's cores are many times slower.
torch.set_num_threads(1)


@pytest.fixture
def on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "compute_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(run, "compute_dtype", lambda _: torch.float32)


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> TunedModel:
    return TunedModel(LanguageModel(load_base_model(tiny_model, torch.device("cpu"), torch.float32)))


@pytest.fixture(scope="session")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_adapter(tiny_model, tmp_path_factory.mktemp("adapter"), 1)


@pytest.fixture(scope="session")
def whole_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of the tiny model's weights, a little changed: what full fine-tuning leaves."""
    model = load_base_model(tiny_model, torch.device("cpu"), torch.float32)
    torch.manual_seed(3)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.05)
    folder = tmp_path_factory.mktemp("whole")
    model.save_pretrained(folder)
    return folder
