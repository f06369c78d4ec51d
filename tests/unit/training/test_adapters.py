"""The adapter is PEFT's own format: anybody loads it, and it tells nothing of the machine that made it."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from manyicl_core.base_models.load import load_base_model
from manyicl_core.contract.train_spec import LoraSpec
from manyicl_core.method.encoding import ENCODER_VERSION, template_hash
from manyicl_core.objects import ADAPTER_FILES
from manyicl_core.training.adapters import add_adapter, save_adapter
from tests.unit.training.specs import PUBLIC_ID

TOKENS = torch.arange(3, 40).unsqueeze(0)


def base_model(folder: Path) -> PreTrainedModel:
    return load_base_model(folder, torch.device("cpu"), torch.float32)


@pytest.fixture
def model(tiny_model: Path) -> PeftModel:
    """The tiny model with an adapter that changes its answers."""
    torch.manual_seed(0)
    model = add_adapter(base_model(tiny_model), PUBLIC_ID, LoraSpec(rank=4, alpha=8))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=TOKENS).logits


def test_a_fresh_adapter_changes_nothing_and_leaves_the_base_frozen(tiny_model: Path):
    plain = logits(base_model(tiny_model))
    model = add_adapter(base_model(tiny_model), PUBLIC_ID, LoraSpec(rank=4, alpha=8))
    torch.testing.assert_close(logits(model), plain)
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable
    assert all("lora_" in name and parameter.dtype == torch.float32 for name, parameter in trainable.items())


def test_peft_alone_loads_a_saved_adapter_to_the_same_logits(model: PeftModel, tiny_model: Path, tmp_path: Path):
    save_adapter(model, tmp_path)
    loaded = PeftModel.from_pretrained(base_model(tiny_model), str(tmp_path)).eval()
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.allclose(logits(loaded), logits(base_model(tiny_model)), atol=0.1)


def test_a_saved_adapter_has_its_three_files_and_nothing_else(model: PeftModel, tmp_path: Path):
    save_adapter(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(ADAPTER_FILES)


def test_an_adapter_names_its_base_by_public_id_and_no_path(model: PeftModel, tiny_model: Path, tmp_path: Path):
    save_adapter(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == PUBLIC_ID
    for path in tmp_path.iterdir():
        assert str(tiny_model).encode() not in path.read_bytes()


def test_an_adapter_carries_the_contract_of_its_encoder(model: PeftModel, tmp_path: Path):
    save_adapter(model, tmp_path)
    assert json.loads((tmp_path / "manyicl.json").read_text()) == {
        "encoder_version": ENCODER_VERSION,
        "template_hash": template_hash(),
    }


def test_the_configs_bytes_do_not_hang_on_the_order_of_a_set(model: PeftModel, tmp_path: Path):
    save_adapter(model, tmp_path)
    modules = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert modules == sorted(modules)
    assert len(modules) == 14, "seven linear layers in each of two blocks"


@pytest.mark.parametrize("modules", [["v_proj", "q_proj"], r".*\.q_proj"])
def test_only_the_asked_layers_are_adapted(tiny_model: Path, modules: str | list[str]):
    model = add_adapter(base_model(tiny_model), PUBLIC_ID, LoraSpec(rank=2, alpha=4, target_modules=modules))
    adapted = {name.split(".lora_")[0].split(".")[-1] for name, _ in model.named_parameters() if "lora_" in name}
    assert adapted == ({"q_proj"} if isinstance(modules, str) else set(modules))
