"""The weights that a job trains: a LoRA adapter in plain PEFT format, or the whole model."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel

from manyicl_core.base_models.load import load_base_model
from manyicl_core.base_models.lora import leave_inputs_to_autocast
from manyicl_core.base_models.older_readers import readable_by_all
from manyicl_core.contract.train_spec import LINEAR_LAYERS, LoraSpec, TrainSpec
from manyicl_core.contract.weights import ADAPTER_CONFIG_FILE, ADAPTER_FILE, CONFIG_FILE, CONTRACT_FILE, MODEL_FILE
from manyicl_core.method.encoding import ENCODER_VERSION, template_hash
from manyicl_core.training.sharding import gathered

# What other programs read of an adapter's configuration, whatever PEFT's defaults come to be.
_ALWAYS_SAID = {"peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "bias"}


def trainable_model(spec: TrainSpec, device: torch.device, dtype: torch.dtype) -> PreTrainedModel | PeftModel:
    """The model with the weights that the job starts from, and only its trained weights with a gradient.

    Trained weights are float32, frozen ones ``dtype``.
    """
    folder = Path(spec.base_model_folder)
    if spec.lora is None:
        model = load_base_model(folder, device, torch.float32)
        model.requires_grad_(True)
        if spec.start_folder:
            load_weights(model, Path(spec.start_folder))
        return model
    base = load_base_model(folder, device, dtype, quantize=spec.lora.quantize_base)
    adapted = add_adapter(base, spec.base_model, spec.lora)
    if spec.start_folder:
        load_weights(adapted, Path(spec.start_folder))
    return adapted


def add_adapter(model: PreTrainedModel, base_model: str, lora: LoraSpec) -> PeftModel:
    """Put fresh, trainable float32 LoRA layers into ``model``; the base stays frozen."""
    target_modules, top = lora.target_modules, None
    if lora.top_layers is not None:
        layers = model.config.num_hidden_layers
        assert isinstance(layers, int)
        top = list(range(max(0, layers - lora.top_layers), layers))
        if target_modules == LINEAR_LAYERS:  # PEFT takes layers only beside names
            target_modules = _linear_layers(model)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_modules,
        layers_to_transform=top,
    )
    peft_model = get_peft_model(model, config)
    # PEFT writes the folder that the model was loaded from; users need the public id.
    config.base_model_name_or_path = base_model
    modules: Any = config.target_modules
    if isinstance(modules, set):
        # PEFT makes a set of a list, and would write it in another order in every process.
        config.target_modules = sorted(modules)
    assert isinstance(peft_model, PeftModel)
    leave_inputs_to_autocast(peft_model)
    return peft_model


def _linear_layers(model: PreTrainedModel) -> list[str]:
    head = model.get_output_embeddings()
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        }
    )


def trained_parameters(model: PreTrainedModel | PeftModel) -> list[tuple[str, torch.nn.Parameter]]:
    """The parameters that a job changes, by name."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def save_weights(model: PreTrainedModel | PeftModel, folder: Path, leads: bool = True) -> None:
    """Write the trained weights as safetensors, with their configuration and the encoder contract.

    An adapter's folder is loaded by ``PeftModel.from_pretrained(base, folder)``, a whole model's by
    ``AutoModelForCausalLM.from_pretrained(folder)``. All processes of a job take part, and the one
    that ``leads`` writes.
    """
    weights = gathered(trained_parameters(model), keep=leads)
    if not leads:
        return
    if isinstance(model, PeftModel):
        model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False, state_dict=weights)
        # PEFT adds a model card that speaks of the training machine; ours is made by the service.
        (folder / "README.md").unlink(missing_ok=True)
        _keep_what_says_something(folder / ADAPTER_CONFIG_FILE)
    else:
        model.save_pretrained(str(folder), max_shard_size="1TB", state_dict=weights)
        config = folder / CONFIG_FILE
        config.write_bytes(readable_by_all(CONFIG_FILE, config.read_bytes()))
    contract = {"encoder_version": ENCODER_VERSION, "template_hash": template_hash()}
    (folder / CONTRACT_FILE).write_text(json.dumps(contract, indent=2) + "\n", encoding="utf-8")


def _keep_what_says_something(path: Path) -> None:
    """Take from an adapter's configuration the defaults: an older PEFT refuses keys that it does not know."""
    config = json.loads(path.read_text(encoding="utf-8"))
    defaults = LoraConfig().to_dict()
    said = {
        key: value
        for key, value in config.items()
        if key in _ALWAYS_SAID or (key != "peft_version" and value != defaults[key])
    }
    path.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_weights(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """Restore in place what ``save_weights`` wrote."""
    if isinstance(model, PeftModel):
        set_peft_model_state_dict(model, load_file(str(folder / ADAPTER_FILE)))
    else:
        # Tied weights are saved once.
        missing, unexpected = model.load_state_dict(load_file(str(folder / MODEL_FILE)), strict=False)
        assert not unexpected and set(missing) <= set(model.all_tied_weights_keys)
