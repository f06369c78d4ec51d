"""A base model's weights into memory, frozen, in the fastest dtype of this machine."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from manyicl_core.base_models.attention import BLOCKED_ATTENTION


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
    """This process's GPU: the first, or the one that ``torch.distributed.run`` gives it. Else the CPU."""
    number = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", number) if torch.cuda.is_available() else torch.device("cpu")


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on ``device``."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    [available] = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(available) * 1024


class MissingWeights(ValueError):
    """A model's files are not whole."""


def load_base_model(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    quantize: bool = False,
    config: PreTrainedConfig | None = None,
) -> PreTrainedModel:
    """The frozen causal language model in ``folder`` (safetensors only), in evaluation mode.

    Args:
        quantize: hold the linear layers in 4-bit NormalFloat (QLoRA, Dettmers et al. 2023).
        config: another configuration than the folder's, of its first layers alone for example.

    Raises:
        ImportError: ``quantize`` without bitsandbytes.
        MissingWeights: a tensor is not in the files; transformers would make it up.
    """
    quantization = None
    if quantize:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    loaded: Any = AutoModelForCausalLM.from_pretrained(  # a pair, which its types do not say
        folder,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        attn_implementation=BLOCKED_ATTENTION if device.type == "cpu" else "sdpa",
        quantization_config=quantization,
        device_map={"": device} if quantize else None,
        output_loading_info=True,
    )
    model: PreTrainedModel = loaded[0]
    if missing := sorted(loaded[1]["missing_keys"]):
        raise MissingWeights(f"the files in {folder} have no weights of {', '.join(missing[:3])}")
    model.requires_grad_(False)
    if not quantize:
        torch.nn.Module.to(model, device)
    model.eval()
    return model
