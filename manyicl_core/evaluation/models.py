"""The models under evaluation, in as little memory as they take."""

from functools import cached_property
from pathlib import Path

import torch

from manyicl_core.base_models.load import load_base_model
from manyicl_core.contract.evaluation_spec import EvaluatedModel
from manyicl_core.inference.language_model import LanguageModel, TunedModel

ADAPTER_CONFIG = "adapter_config.json"


class Models:
    """The base model with one adapter beside it at a time, and at most one other whole model."""

    def __init__(self, base_folder: Path, models: list[EvaluatedModel], device: torch.device, dtype: torch.dtype):
        self._base_folder = base_folder
        self._folders = {model.name: Path(model.weights_folder) if model.weights_folder else None for model in models}
        self._device, self._dtype = device, dtype
        self._attached: str | None = None
        self._whole: tuple[str, LanguageModel] | None = None

    def use(self, name: str) -> TunedModel:
        """The model, ready to answer; the one before it may be out of memory from now on."""
        folder = self._folders[name]
        if folder is not None and not (folder / ADAPTER_CONFIG).is_file():
            return TunedModel(self._use_whole(name, folder))
        if folder is not None and self._attached != name:
            if self._attached is not None:
                self._base.detach(self._attached)
            self._base.attach(name, folder)
            self._attached = name
        return TunedModel(self._base, name if folder is not None else None)

    def load_order(self, name: str) -> tuple[bool, int]:
        """A sort key that brings together what is in memory at the same time."""
        folder = self._folders[name]
        is_whole = folder is not None and not (folder / ADAPTER_CONFIG).is_file()
        return is_whole, list(self._folders).index(name)

    @cached_property
    def _base(self) -> LanguageModel:
        return self._load(self._base_folder)

    def _use_whole(self, name: str, folder: Path) -> LanguageModel:
        if self._whole is None or self._whole[0] != name:
            self._whole = None  # freed before the next is loaded
            self._whole = (name, self._load(folder))
        return self._whole[1]

    def _load(self, folder: Path) -> LanguageModel:
        return LanguageModel(load_base_model(folder, self._device, self._dtype))
