"""What a client may ask of a job: the request body, and the ``manyicl`` object in it."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from manyicl_core.contract.train_spec import Schedule
from manyicl_core.method.objectives import Normalization, Objective
from manyicl_core.method.tasks import MAX_TASKS, TaskDefinition
from manyicl_core.request_body import RequestBody
from manyicl_core.store.evaluations.options import EvaluationOptions

Auto = Literal["auto"]
JobObjective = Objective | Literal["dedicated"]


class LoraOptions(RequestBody):
    """LoRA: ``target_modules`` is ``"all-linear"`` or a list of layer names such as ``q_proj``.

    ``top_layers`` adapts only so many layers, counted from the output; ``quantize_base`` holds the
    frozen base in 4 bits while training (QLoRA).
    """

    rank: int = Field(default=16, ge=1, le=256)
    alpha: int = Field(default=32, ge=1, le=1024)
    dropout: float = Field(default=0.0, ge=0, le=0.9, allow_inf_nan=False)
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1, max_length=64)] = "all-linear"
    top_layers: int | None = Field(default=None, ge=1, le=1000)
    quantize_base: bool = False


class OptimizerOptions(RequestBody):
    """AdamW and its schedule; ``micro_batch_size`` sequences run at once, the rest of a step accumulates."""

    schedule: Schedule = "cosine"
    warmup_fraction: float = Field(default=0.1, ge=0, le=1, allow_inf_nan=False)
    weight_decay: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)
    max_gradient_norm: float = Field(default=1.0, gt=0, le=1e6, allow_inf_nan=False)
    micro_batch_size: int = Field(default=1, ge=1, le=256)


class ValidationOptions(RequestBody):
    """The loss on the validation file's queries of the trained tasks, while training.

    It is measured every ``every`` steps on at most ``sequences`` sequences. With ``patience``,
    training stops after so many measurements without a new best, and the best weights count.
    """

    every: int = Field(default=10, ge=1, le=1_000_000)
    sequences: int = Field(default=8, ge=1, le=10_000)
    patience: int | None = Field(default=None, ge=1, le=1000)


class ManyiclOptions(RequestBody):
    """ManyICL's own options, sent in the client's ``extra_body={"manyicl": …}``."""

    objective: JobObjective = "many_icl"
    dedicated_objective: Objective = "zero_shot"
    normalization: Normalization = "token"
    max_sequence_tokens: int = Field(default=1024, ge=64, le=131_072)
    max_demonstrations: int | None = Field(default=None, ge=1, le=100_000)
    demonstrations: Literal["natural", "balanced"] = "natural"
    mixing: Literal["uniform", "proportional", "temperature"] = "uniform"
    mixing_temperature: float = Field(default=2.0, ge=1, le=1000, allow_inf_nan=False)
    token_budget: int | None = Field(default=None, ge=1, le=10**12)
    n_epochs: int | None = Field(default=None, ge=1, le=1000)
    tasks: list[TaskDefinition] = Field(default=[], max_length=MAX_TASKS)
    adaptation: Literal["lora", "full"] = "lora"
    lora: LoraOptions = LoraOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    validation: ValidationOptions | None = None
    deterministic: bool = False
    evaluation: EvaluationOptions = EvaluationOptions()


class Hyperparameters(RequestBody):
    """OpenAI's three hyperparameters; ``"auto"`` takes this service's default."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = "auto"


class Supervised(RequestBody):
    """OpenAI's ``method.supervised``."""

    hyperparameters: Hyperparameters = Hyperparameters()


class Method(RequestBody):
    """OpenAI's ``method``; only supervised jobs exist here."""

    type: Literal["supervised"]
    supervised: Supervised = Supervised()


class CreateJob(RequestBody):
    """The body of ``POST /v1/fine_tuning/jobs``."""

    model: str = Field(min_length=1, max_length=256)
    training_file: str = Field(min_length=1, max_length=64)
    validation_file: str | None = Field(default=None, max_length=64)
    suffix: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")] | None = None
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    metadata: dict[str, str] | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    integrations: Annotated[list[Any], Field(max_length=0)] | None = None
    manyicl: ManyiclOptions = ManyiclOptions()

    @model_validator(mode="after")
    def _metadata_is_small(self) -> "CreateJob":
        for key, value in (self.metadata or {}).items():
            if len(key) > 64 or len(value) > 512:
                raise ValueError("metadata keys have at most 64 characters and values at most 512")
        if len(self.metadata or {}) > 16:
            raise ValueError("metadata has at most 16 pairs")
        return self

    @model_validator(mode="after")
    def _one_length(self) -> "CreateJob":
        asked = [self.manyicl.token_budget, self.manyicl.n_epochs, self.asked_hyperparameters().n_epochs]
        if sum(value not in (None, "auto") for value in asked) > 1:
            raise ValueError("n_epochs and token_budget exclude each other; state the length of training once")
        return self

    def asked_hyperparameters(self) -> Hyperparameters:
        """The hyperparameters, from ``method`` or from the deprecated top level."""
        if self.method is not None:
            return self.method.supervised.hyperparameters
        return self.hyperparameters or Hyperparameters()


DEFAULT_EPOCHS = 3
DEFAULT_BATCH_SIZE = 2
DEFAULT_LEARNING_RATE = 5e-4
DEFAULT_FULL_LEARNING_RATE = 5e-5  # LoRA learns best at about ten times the rate of all weights
CHECKPOINT_EVERY = 10


def resolved_hyperparameters(request: CreateJob) -> dict[str, Any]:
    """The hyperparameters in numbers, as the job object shows them."""
    asked = request.asked_hyperparameters()
    n_epochs = request.manyicl.n_epochs if asked.n_epochs == "auto" else asked.n_epochs
    if n_epochs is None and request.manyicl.token_budget is None:
        n_epochs = DEFAULT_EPOCHS
    return {
        "n_epochs": n_epochs,
        "batch_size": DEFAULT_BATCH_SIZE if asked.batch_size == "auto" else asked.batch_size,
        "learning_rate_multiplier": (
            1.0 if asked.learning_rate_multiplier == "auto" else asked.learning_rate_multiplier
        ),
    }
