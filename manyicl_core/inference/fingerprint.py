"""OpenAI's ``system_fingerprint``: while it stays the same, so does what a seed gives."""

import hashlib
import importlib.metadata
from pathlib import Path

import torch

from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix_files import base_name
from manyicl_core.objects import sha256_of
from manyicl_core.settings import Settings

_PACKAGES = ("torch", "transformers", "tokenizers")


def fingerprint(folder: Path, model: LanguageModel, settings: Settings) -> str:
    """What the numbers of an engine depend on: weights, dtype, this code, libraries, processor and threads.

    Args:
        folder: of the base model's files.
        model: as it is in memory.
        settings: of the engine.
    """
    parts = [
        base_name(folder, model.dtype, settings.prefix_eight_bits),
        *(sha256_of(path) for path in sorted(Path(__file__).parent.glob("*.py"))),
        *(importlib.metadata.version(package) for package in _PACKAGES),
        _processor(model.device),
        str(settings.threads),
    ]
    return "fp_" + hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability() + _model_name()


def _model_name() -> str:
    """As Linux tells it; elsewhere nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("model name")), "")
