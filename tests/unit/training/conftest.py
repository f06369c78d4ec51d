"""Trainers of these tests compute in float32 on the processor, on every machine."""

import pytest
import torch

from manyicl_core.training import trainer

# Tests run side by side, and threads that wait for each other's cores are many times slower.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "compute_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(trainer, "compute_dtype", lambda _: torch.float32)
