"""Trainers of these tests compute in float32 on the processor, on every machine."""

import pytest
import torch

from manyicl_core.training import trainer


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "compute_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(trainer, "compute_dtype", lambda _: torch.float32)
