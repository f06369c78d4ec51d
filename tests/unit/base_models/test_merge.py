import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from manyicl_core.base_models import merge
from manyicl_core.base_models.merge import MergedModel
from manyicl_core.contract.train_spec import LoraSpec
from tests.unit.random_adapter import save_random_adapter

TOKENS = torch.arange(5, 25)[None]


def merged_file(base: Path, adapter: Path, target: Path) -> Path:
    model = MergedModel(base)
    target.write_bytes(b"".join(model.stream(adapter)))
    assert target.stat().st_size == model.bytes
    return target


@pytest.mark.parametrize("lora", [LoraSpec(rank=4, alpha=8), LoraSpec(rank=3, alpha=32, top_layers=1)])
def test_a_merged_model_answers_as_its_base_with_the_adapter(
    tiny_model: Path, tmp_path: Path, lora: LoraSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "_PART_BYTES", 1000)  # so that every tensor takes several parts
    adapter = save_random_adapter(tiny_model, tmp_path / "adapter", 1, lora)
    merged = tmp_path / "merged"
    merged.mkdir()
    (merged / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    merged_file(tiny_model, adapter, merged / "model.safetensors")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.inference_mode():
        plain = base(TOKENS).logits
        expected = PeftModel.from_pretrained(base, str(adapter))(TOKENS).logits
        found = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)(TOKENS).logits
    assert (expected - plain).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_weights_are_those_of_peft_in_the_dtype_of_the_base(
    tiny_model: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype).save_pretrained(base, max_shard_size="100KB")
    assert len(list(base.glob("*.safetensors"))) > 1
    adapter = save_random_adapter(tiny_model, tmp_path / "adapter", 2)
    exact = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(adapter)
    ).merge_and_unload()
    expected = exact.state_dict()
    found = load_file(merged_file(base, adapter, tmp_path / "model.safetensors"))
    assert {tensor.dtype for tensor in found.values()} == {dtype}
    assert set(expected) - set(found) <= {"lm_head.weight"}
    for name, tensor in found.items():
        # Rounded once, to the nearest number of the dtype.
        torch.testing.assert_close(
            tensor, expected[name].to(dtype), atol=1e-6, rtol=2e-2 if dtype != torch.float32 else 1e-5
        )


def test_what_is_not_adapted_is_copied_bit_by_bit(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    tensors = {
        "b.weight": torch.randn(3, 5),
        "a.bias": torch.arange(7),
        "c.weight": torch.randn(2, 2).to(torch.float16),
    }
    save_file(tensors, base / "model.safetensors")
    save_file({}, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 1, "lora_alpha": 1}), encoding="utf-8")
    found = load_file(merged_file(base, adapter, tmp_path / "model.safetensors"))
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
