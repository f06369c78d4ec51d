"""A base model's weights into memory, frozen, in the fastest dtype of this machine."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor or the GPU computes in it, else float32.

    A CPU without bf16 instructions emulates them, slower than float32.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return torch.float32
    native = "avx512_bf16" in flags or "amx_bf16" in flags or " bf16 " in flags
    return torch.bfloat16 if native else torch.float32


def compute_device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def load_base_model(folder: Path, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The frozen causal language model in ``folder`` (safetensors only), in evaluation mode."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, attn_implementation="sdpa"
    )
    model.requires_grad_(False)
    torch.nn.Module.to(model, device)
    model.eval()
    return model
