"""What is trained is saved in the libraries' own formats: anybody loads it, and it tells nothing of the machine."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from manyicl_core.base_models.load import load_base_model
from manyicl_core.contract.train_spec import LoraSpec
from manyicl_core.method.encoding import ENCODER_VERSION, template_hash
from manyicl_core.training.weights import add_adapter, load_weights, save_weights, trainable_model
from tests.unit.training.specs import PUBLIC_ID, make_spec, steps_of

CPU = torch.device("cpu")
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
    save_weights(model, tmp_path)
    loaded = PeftModel.from_pretrained(base_model(tiny_model), str(tmp_path)).eval()
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.allclose(logits(loaded), logits(base_model(tiny_model)), atol=0.1)


def test_a_saved_adapter_has_its_three_files_and_nothing_else(model: PeftModel, tmp_path: Path):
    save_weights(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manyicl.json",
    ]


def test_an_adapter_names_its_base_by_public_id_and_no_path(model: PeftModel, tiny_model: Path, tmp_path: Path):
    save_weights(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == PUBLIC_ID
    for path in tmp_path.iterdir():
        assert str(tiny_model).encode() not in path.read_bytes()


def test_an_adapter_carries_the_contract_of_its_encoder(model: PeftModel, tmp_path: Path):
    save_weights(model, tmp_path)
    assert json.loads((tmp_path / "manyicl.json").read_text()) == {
        "encoder_version": ENCODER_VERSION,
        "template_hash": template_hash(),
    }


@pytest.mark.parametrize("lora", [LoraSpec(rank=4, alpha=8), LoraSpec(rank=2, alpha=4, dropout=0.5, top_layers=1)])
def test_an_adapters_configuration_has_no_key_that_an_older_peft_does_not_know(
    tiny_model: Path, tmp_path: Path, lora: LoraSpec
):
    save_weights(add_adapter(base_model(tiny_model), PUBLIC_ID, lora), tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert set(written) <= {
        "base_model_name_or_path",
        "bias",
        "inference_mode",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "peft_type",
        "r",
        "target_modules",
        "task_type",
    }
    # The rest are defaults: nothing is lost.
    model = add_adapter(base_model(tiny_model), PUBLIC_ID, lora)
    model.save_pretrained(str(tmp_path / "all"), save_embedding_layers=False)
    whole = PeftConfig.from_pretrained(str(tmp_path / "all")).to_dict()
    assert PeftConfig.from_pretrained(str(tmp_path)).to_dict() == whole


def test_the_configs_bytes_do_not_hang_on_the_order_of_a_set(model: PeftModel, tmp_path: Path):
    save_weights(model, tmp_path)
    modules = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert modules == sorted(modules)
    assert len(modules) == 14, "seven linear layers in each of two blocks"


@pytest.mark.parametrize("modules", [["v_proj", "q_proj"], r".*\.q_proj"])
def test_only_the_asked_layers_are_adapted(tiny_model: Path, modules: str | list[str]):
    model = add_adapter(base_model(tiny_model), PUBLIC_ID, LoraSpec(rank=2, alpha=4, target_modules=modules))
    adapted = {name.split(".lora_")[0].split(".")[-1] for name, _ in model.named_parameters() if "lora_" in name}
    assert adapted == ({"q_proj"} if isinstance(modules, str) else set(modules))


def layers_of(names: list[str]) -> set[int]:
    return {int(name.split(".layers.")[1].split(".")[0]) for name in names if "lora_" in name}


@pytest.mark.parametrize(("top_layers", "adapted"), [(1, {1}), (2, {0, 1}), (9, {0, 1}), (None, {0, 1})])
@pytest.mark.parametrize("modules", ["all-linear", ["q_proj", "up_proj"]])
def test_only_so_many_layers_counted_from_the_output_are_adapted(
    tiny_model: Path, tmp_path: Path, modules: str | list[str], top_layers: int | None, adapted: set[int]
):
    lora = LoraSpec(rank=2, alpha=4, target_modules=modules, top_layers=top_layers)
    model = add_adapter(base_model(tiny_model), PUBLIC_ID, lora)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert layers_of(names) == adapted
    assert len(names) == len(adapted) * 2 * (7 if modules == "all-linear" else 2)
    assert not any("lm_head" in name for name in names)

    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    save_weights(model, tmp_path)
    loaded = PeftModel.from_pretrained(base_model(tiny_model), str(tmp_path)).eval()
    assert layers_of([name for name, _ in loaded.named_parameters()]) == adapted
    assert torch.equal(logits(loaded), logits(model.eval()))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manyicl.json",
    ]


def test_dropout_is_on_while_training_and_off_afterwards_and_peft_knows_it(tiny_model: Path, tmp_path: Path):
    torch.manual_seed(0)
    model = add_adapter(base_model(tiny_model), PUBLIC_ID, LoraSpec(rank=4, alpha=8, dropout=0.5))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    model.train()
    assert not torch.equal(logits(model), logits(model))
    model.eval()
    assert torch.equal(logits(model), logits(model))
    save_weights(model, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["lora_dropout"] == 0.5


def shaken(model: PreTrainedModel) -> PreTrainedModel:
    """The model with every weight moved a little."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(params=["own head", "tied head"])
def whole_base(request: pytest.FixtureRequest, tiny_model: Path, tmp_path: Path) -> Path:
    """A base model with an output head of its own, or one that shares its weights with the embedding."""
    if request.param == "own head":
        return tiny_model
    config = LlamaConfig.from_pretrained(tiny_model, tie_word_embeddings=True)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "tied")
    return tmp_path / "tied"


def test_a_whole_model_is_saved_and_loaded_to_the_same_logits(whole_base: Path, tmp_path: Path):
    spec = make_spec(whole_base, lora=None)
    model = trainable_model(spec, CPU, torch.bfloat16)
    assert isinstance(model, PreTrainedModel)
    assert {(parameter.requires_grad, parameter.dtype) for parameter in model.parameters()} == {(True, torch.float32)}
    save_weights(shaken(model), tmp_path / "saved")
    assert not torch.allclose(logits(model), logits(base_model(whole_base)), atol=0.1)
    assert (tmp_path / "saved" / "model.safetensors").exists()

    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    torch.testing.assert_close(logits(theirs), logits(model), rtol=1e-4, atol=1e-4)  # another attention kernel
    started = trainable_model(spec.model_copy(update={"start_folder": str(tmp_path / "saved")}), CPU, torch.float32)
    assert torch.equal(logits(started), logits(model))
    in_place = trainable_model(spec, CPU, torch.float32)
    load_weights(in_place, tmp_path / "saved")
    assert torch.equal(logits(in_place), logits(model))


def test_a_whole_model_names_no_path_and_carries_the_contract_of_its_encoder(tiny_model: Path, tmp_path: Path):
    save_weights(trainable_model(make_spec(tiny_model, lora=None), CPU, torch.float32), tmp_path)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert str(tiny_model).encode() not in content, path.name
        assert b"blocked" not in content, "an attention kernel that only this service has"
    assert json.loads((tmp_path / "manyicl.json").read_text())["template_hash"] == template_hash()


def test_a_whole_models_rotary_base_and_dtype_are_told_to_older_readers_too(tiny_model: Path, tmp_path: Path):
    save_weights(trainable_model(make_spec(tiny_model, lora=None), CPU, torch.float32), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert config["torch_dtype"] == config["dtype"]


def test_full_fine_tuning_moves_every_weight_and_learns(whole_base: Path, tiny_model: Path, tmp_path: Path):
    for path in tiny_model.glob("tokenizer*"):
        if whole_base != tiny_model:
            (whole_base / path.name).write_bytes(path.read_bytes())
    steps = steps_of(make_spec(whole_base, lora=None, learning_rate=2e-3, token_budget=2000), tmp_path / "run")
    assert sum(step.loss for step in steps[-3:]) < 0.8 * sum(step.loss for step in steps[:3])
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "weights")
    before = dict(base_model(whole_base).named_parameters())
    assert before.keys() == dict(trained.named_parameters()).keys()
    for name, parameter in trained.named_parameters():
        assert not torch.equal(parameter, before[name]), name
