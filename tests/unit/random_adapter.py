"""An adapter with random weights, large enough to change every answer."""

from pathlib import Path

import torch

from manyicl_core.base_models.load import load_base_model
from manyicl_core.contract.train_spec import LoraSpec
from manyicl_core.training.weights import add_adapter, save_weights

_SMALL = LoraSpec(rank=4, alpha=8)


def save_random_adapter(model_folder: Path, folder: Path, seed: int, lora: LoraSpec = _SMALL) -> Path:
    """Write the adapter of ``seed`` for the model into ``folder`` and return that."""
    torch.manual_seed(seed)
    base = load_base_model(model_folder, torch.device("cpu"), torch.float32)
    peft_model = add_adapter(base, "somebody/tiny-llama", lora)
    for parameter in peft_model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    save_weights(peft_model, folder)
    return folder
