"""Turn a GGUF file into a folder of safetensors and tokenizer: ``python -m … FILE FOLDER``."""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from manyicl_core.base_models.older_readers import readable_by_all


def convert_gguf(file: Path, folder: Path) -> None:
    """Dequantise ``file`` to bfloat16 and write a plain model with its tokenizer and chat template."""
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # A model from GGUF is marked as quantised, and transformers refuses to save it, although its
    # weights are plain by now: carry them into a model that never was.
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    settings.pop("_name_or_path", None)
    settings.pop("_model_name_or_path", None)
    plain = AutoModelForCausalLM.from_config(type(loaded.config).from_dict(settings), dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    folder.mkdir(parents=True)
    tokenizer.save_pretrained(folder)
    plain.to(torch.bfloat16).save_pretrained(folder)
    for path in folder.glob("*.json"):
        path.write_bytes(readable_by_all(path.name, path.read_bytes()))


if __name__ == "__main__":
    convert_gguf(Path(sys.argv[1]), Path(sys.argv[2]))
