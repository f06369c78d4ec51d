"""A base model in memory."""

from pathlib import Path

import pytest
import torch

from manyicl_core.base_models.load import compute_dtype, load_base_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_model_is_frozen_in_its_dtype_and_does_not_train(tiny_model: Path, dtype: torch.dtype):
    model = load_base_model(tiny_model, torch.device("cpu"), dtype)
    assert not model.training
    assert {parameter.requires_grad for parameter in model.parameters()} == {False}
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_weights_that_are_not_safetensors_are_refused(tiny_model: Path, tmp_path: Path):
    for path in tiny_model.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        load_base_model(tmp_path, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("flags : fpu avx2 avx512_bf16 amx_tile", torch.bfloat16),
        ("flags : fpu amx_bf16", torch.bfloat16),
        ("Features : fp asimd bf16 i8mm", torch.bfloat16),
        ("flags : fpu avx2 avx512f", torch.float32),
    ],
)
def test_a_processor_computes_in_bfloat16_only_where_it_has_the_instructions(
    monkeypatch: pytest.MonkeyPatch, flags: str, dtype: torch.dtype
):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: flags)
    assert compute_dtype(torch.device("cpu")) == dtype


def test_a_processor_that_tells_nothing_computes_in_float32(monkeypatch: pytest.MonkeyPatch):
    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert compute_dtype(torch.device("cpu")) == torch.float32
