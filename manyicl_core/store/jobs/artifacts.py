"""What can be downloaded of a fine-tuned model, most of it made while it is sent."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel
from sqlalchemy.orm import Session

from manyicl_core.base_models.catalog import base_model_folder, find_base_model, is_pulled
from manyicl_core.base_models.merge import MergedModel
from manyicl_core.base_models.older_readers import readable_by_all
from manyicl_core.contract.weights import ADAPTER_CONFIG_FILE, ADAPTER_FILE, CONFIG_FILE, CONTRACT_FILE, MODEL_FILE
from manyicl_core.errors import NotFound, Unavailable
from manyicl_core.method.encoding import template_hash
from manyicl_core.objects import ArtifactStore, fetch_weights, weights_key
from manyicl_core.settings import get_settings
from manyicl_core.store.jobs.model_card import model_card
from manyicl_core.store.jobs.use import use_files
from manyicl_core.store.jobs.zip_stream import zipped
from manyicl_core.store.models.service import own_model
from manyicl_core.store.tables import Model

ADAPTER = "adapter.safetensors"
MODEL = "model.safetensors"
ADAPTER_ZIP = "adapter.zip"
MODEL_ZIP = "model.zip"
CARD = "README.md"

_SAFETENSORS = "application/octet-stream"
_ZIP = "application/zip"
_MODEL_FILES = (CONFIG_FILE, "generation_config.json")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


class ArtifactObject(BaseModel):
    """One file that can be downloaded under ``…/artifacts/<id>``."""

    id: str
    object: Literal["model.artifact"] = "model.artifact"
    model: str
    media_type: str
    description: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file to send.

    Attributes:
        bytes: its length, where that is known before it is made.
    """

    name: str
    media_type: str
    content: Iterator[bytes]
    bytes: int | None


@dataclass(frozen=True, slots=True)
class _Kind:
    media_type: str
    description: str
    make: Callable[["_Source"], Artifact]


def list_artifacts(session: Session, project_id: str, model_id: str) -> list[ArtifactObject]:
    """What there is of a model.

    Raises:
        NotFound: the project made no such model.
    """
    model = own_model(session, project_id, model_id)
    return [
        ArtifactObject(id=name, model=model.id, media_type=kind.media_type, description=kind.description)
        for name, kind in _kinds(model).items()
    ]


def open_artifact(session: Session, store: ArtifactStore, project_id: str, model_id: str, name: str) -> Artifact:
    """One file of a model.

    Raises:
        NotFound: the project made no such model, or there is no such file of it.
        Unavailable: the base model, of which a part is needed, is not on this machine.
    """
    model = own_model(session, project_id, model_id)
    kinds = _kinds(model)
    if name not in kinds:
        raise NotFound(f"artifact of this model (its artifacts are {', '.join(kinds)})", name, "artifact")
    return kinds[name].make(_Source(store, model, model_card(session, store, model)))


def _kinds(model: Model) -> dict[str, _Kind]:
    card = _Kind("text/markdown", "model card: data, hyperparameters, results", _Source.card_file)
    if model.adaptation == "full":
        return {
            MODEL: _Kind(_SAFETENSORS, "the model's weights", _Source.whole_model),
            MODEL_ZIP: _Kind(_ZIP, "folder for transformers, with tokenizer, tasks and predict.py", _Source.whole_zip),
            CARD: card,
        }
    return {
        ADAPTER: _Kind(_SAFETENSORS, "the adapter's weights", _Source.adapter),
        ADAPTER_ZIP: _Kind(_ZIP, "folder for PEFT, with tokenizer, tasks and predict.py", _Source.adapter_zip),
        MODEL: _Kind(_SAFETENSORS, "base model with the adapter merged in", _Source.merged_model),
        MODEL_ZIP: _Kind(_ZIP, "the merged model's folder for transformers, with all that", _Source.merged_zip),
        CARD: card,
    }


class _Source:
    """A model's weights in the store, its base model's folder, and its card."""

    def __init__(self, store: ArtifactStore, model: Model, card: str) -> None:
        self._store = store
        self._model = model
        self._key = weights_key(model.weights_sha256)
        self._card = card.encode()

    def card_file(self) -> Artifact:
        return Artifact(CARD, "text/markdown; charset=utf-8", iter([self._card]), len(self._card))

    def adapter(self) -> Artifact:
        return self._stored(ADAPTER_FILE, ADAPTER)

    def whole_model(self) -> Artifact:
        return self._stored(MODEL_FILE, MODEL)

    def merged_model(self) -> Artifact:
        merged = MergedModel(self._base_folder())
        return Artifact(MODEL, _SAFETENSORS, self._merged(merged), merged.bytes)

    def adapter_zip(self) -> Artifact:
        return self._zip(ADAPTER_ZIP, self._stored_entries(ADAPTER_CONFIG_FILE, ADAPTER_FILE))

    def whole_zip(self) -> Artifact:
        return self._zip(MODEL_ZIP, self._stored_entries(*_MODEL_FILES, MODEL_FILE))

    def merged_zip(self) -> Artifact:
        folder = self._base_folder()
        entries = [*_folder_entries(folder, _MODEL_FILES), (MODEL_FILE, self._merged(MergedModel(folder)))]
        return self._zip(MODEL_ZIP, entries)

    def _stored(self, stored: str, name: str) -> Artifact:
        key = f"{self._key}/{stored}"
        return Artifact(name, _SAFETENSORS, self._store.stream(key), self._store.size(key))

    def _stored_entries(self, *names: str) -> list[tuple[str, Iterator[bytes]]]:
        there = self._store.names(self._key)
        return [(name, self._store.stream(f"{self._key}/{name}")) for name in names if name in there]

    def _zip(self, name: str, entries: list[tuple[str, Iterator[bytes]]]) -> Artifact:
        tokenizer = _folder_entries(self._base_folder(), _TOKENIZER_FILES)
        whole = [(CARD, iter([self._card])), *tokenizer, *self._use_entries(), *entries]
        return Artifact(name, _ZIP, zipped(whole), None)

    def _use_entries(self) -> list[tuple[str, Iterator[bytes]]]:
        model = self._model
        if model.template_hash != template_hash():  # the script and what it reads are today's
            return self._stored_entries(CONTRACT_FILE)
        written = use_files(self._store, model.base_model, model.dataset, model.task, model.trained_tokens)
        return [(name, iter([content])) for name, content in written]

    def _merged(self, merged: MergedModel) -> Iterator[bytes]:
        """The adapter is fetched when the first byte is asked for, and gone after the last."""
        with tempfile.TemporaryDirectory(dir=get_settings().work_folder, prefix="manyicl-") as folder:
            fetch_weights(self._store, self._model.weights_sha256, Path(folder))
            yield from merged.stream(Path(folder))

    def _base_folder(self) -> Path:
        base = find_base_model(self._model.base_model)
        if base is None or not is_pulled(base_model_folder(base)):
            raise Unavailable(f"{self._model.base_model} is not on this machine; run `manyicl models pull`")
        return base_model_folder(base)


def _folder_entries(folder: Path, names: tuple[str, ...]) -> list[tuple[str, Iterator[bytes]]]:
    there = [(name, folder / name) for name in names if (folder / name).is_file()]
    return [(name, iter([readable_by_all(name, path.read_bytes())])) for name, path in there]
