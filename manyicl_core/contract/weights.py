"""The files of trained weights and of checkpoints, as the trainer writes them. No torch."""

from collections.abc import Iterable

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG_FILE = "adapter_config.json"
CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
CONTRACT_FILE = "manyicl.json"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"


def tensors_file(names: Iterable[str]) -> str:
    """The file whose hash names the weights: an adapter's, or a whole model's."""
    return ADAPTER_FILE if ADAPTER_FILE in names else MODEL_FILE


def weight_files(names: Iterable[str]) -> list[str]:
    """A checkpoint's files without what only training needs."""
    return [name for name in names if name not in (OPTIMIZER_FILE, STATE_FILE)]
