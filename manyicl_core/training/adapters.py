"""LoRA adapters in plain PEFT format: made, saved, and bound to their encoder."""

import json
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from manyicl_core.base_models.lora import leave_inputs_to_autocast
from manyicl_core.contract.train_spec import LoraSpec
from manyicl_core.method.encoding import ENCODER_VERSION, template_hash

CONTRACT_FILE = "manyicl.json"


def add_adapter(model: PreTrainedModel, base_model: str, lora: LoraSpec) -> PeftModel:
    """Put fresh, trainable float32 LoRA layers into ``model``; the base stays frozen."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=lora.target_modules,
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


def save_adapter(peft_model: PeftModel, folder: Path) -> None:
    """Write ``adapter_model.safetensors``, ``adapter_config.json`` and the encoder contract.

    ``PeftModel.from_pretrained(base, folder)`` loads the result.
    """
    peft_model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    # PEFT adds a model card that speaks of the training machine; ours is made by the service.
    (folder / "README.md").unlink(missing_ok=True)
    contract = {"encoder_version": ENCODER_VERSION, "template_hash": template_hash()}
    (folder / CONTRACT_FILE).write_text(json.dumps(contract, indent=2) + "\n", encoding="utf-8")
