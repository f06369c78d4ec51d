"""What a job's training starts from: a base model, or one of the project's own models."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from manyicl_core.base_models.catalog import (
    BaseModelEntry,
    base_model_folder,
    context_length,
    is_pulled,
)
from manyicl_core.base_models.shape import linear_layers
from manyicl_core.contract.train_spec import LINEAR_LAYERS
from manyicl_core.contract.weights import ADAPTER_CONFIG_FILE
from manyicl_core.errors import InvalidRequest, NotFound, Unavailable
from manyicl_core.objects import ArtifactStore, weights_key
from manyicl_core.store.jobs.options import CreateJob, LoraOptions, ManyiclOptions
from manyicl_core.store.models.service import served_model
from manyicl_core.store.models.weights import hold_weights


@dataclass(frozen=True, slots=True)
class Start:
    """A checked start.

    Attributes:
        base: the base model.
        folder: where it lies on this machine.
        sha256: the weights that training goes on from, or None for a fresh start.
        options: the request's options with what follows from the start filled in.
    """

    base: BaseModelEntry
    folder: Path
    sha256: str | None
    options: ManyiclOptions


def find_start(session: Session, store: ArtifactStore, project_id: str, request: CreateJob) -> Start:
    """Check the model and the options that depend on it; ``hold_start`` keeps the weights.

    Raises:
        NotFound: there is no such model.
        Conflict: it was trained with another encoder.
        InvalidRequest: the options contradict the model, or each other.
        Unavailable: the base model is not on this machine.
    """
    model = served_model(session, project_id, request.model)
    if model.shared:
        raise InvalidRequest(
            f"{request.model} belongs to another project, which lets this one call it, not train it; start from a "
            "model of your own",
            "model",
        )
    folder = base_model_folder(model.base)
    if not is_pulled(folder):
        raise Unavailable(f"{model.base.id} is not on this machine yet; run `manyicl models pull`", "model")
    options = request.manyicl
    if (longest := context_length(model.base)) < options.max_sequence_tokens:
        raise InvalidRequest(
            f"{model.base.id} reads at most {longest} tokens; lower max_sequence_tokens",
            "manyicl.max_sequence_tokens",
        )
    if model.weights_sha256 is not None:
        try:
            options = _continued(store, model.weights_sha256, model.adaptation, options, folder)
        except FileNotFoundError:  # deleted a moment ago
            raise NotFound("model", request.model, "model") from None
    if options.adaptation == "full" and "lora" in options.model_fields_set:
        raise InvalidRequest(
            "manyicl.lora has no meaning with adaptation 'full'; leave one of them out", "manyicl.lora"
        )
    _check_target_modules(options.lora, folder)
    return Start(model.base, folder, model.weights_sha256, options)


def hold_start(session: Session, project_id: str, model: str, start: Start) -> None:
    """Keep the weights of a start until the commit; from then on the job's row keeps them.

    Others that need the same weights wait for the commit: do what is slow before.

    Raises:
        NotFound: the model has been deleted meanwhile.
    """
    if start.sha256 is not None:
        hold_weights(session, start.sha256)
        # Again, now that nobody can delete it.
        served_model(session, project_id, model)


def _continued(
    store: ArtifactStore, sha256: str, adaptation: str | None, options: ManyiclOptions, folder: Path
) -> ManyiclOptions:
    """The options of a job that goes on from these weights."""
    if "adaptation" in options.model_fields_set and options.adaptation != adaptation:
        raise InvalidRequest(
            f"the model was trained with adaptation {adaptation!r}, and goes on with the same; "
            "leave manyicl.adaptation out or start from a base model",
            "manyicl.adaptation",
        )
    if adaptation == "full":
        return options.model_copy(update={"adaptation": "full"})
    config = json.loads(store.get(f"{weights_key(sha256)}/{ADAPTER_CONFIG_FILE}"))
    return options.model_copy(update={"lora": _lora_of(config, options.lora, folder)})


def _lora_of(config: dict[str, Any], asked: LoraOptions, folder: Path) -> LoraOptions:
    """The adapter's own shape; dropout and quantisation may change from job to job."""
    layers = config["layers_to_transform"]
    shape: dict[str, Any] = {
        "rank": config["r"],
        "alpha": config["lora_alpha"],
        "target_modules": config["target_modules"],
        "top_layers": None if layers is None else len(layers),
    }
    for name, value in shape.items():
        wanted = getattr(asked, name)
        if name not in asked.model_fields_set or wanted == value:
            continue
        if name == "target_modules" and _names(wanted, folder) == _names(value, folder):
            continue
        raise InvalidRequest(
            f"the model's adapter has {name} {value!r}, and training goes on with the same; leave it out or "
            "start from a base model",
            f"manyicl.lora.{name}",
        )
    return asked.model_copy(update=shape)


def _names(target_modules: str | list[str], folder: Path) -> set[str]:
    if target_modules == LINEAR_LAYERS:
        return linear_layers(folder)
    return set(target_modules)


def _check_target_modules(lora: LoraOptions, folder: Path) -> None:
    asked = lora.target_modules
    known = linear_layers(folder)
    unknown = [name for name in asked if name not in known] if isinstance(asked, list) else []
    if unknown:
        raise InvalidRequest(
            f"{unknown[0]!r} is not a linear layer of the model; its layers are {', '.join(sorted(known))}",
            "manyicl.lora.target_modules",
        )
