"""The trainer's input: one JSON file, written by the supervisor. No torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from manyicl_core.method.objectives import Normalization, Objective
from manyicl_core.method.sequences import StreamSettings
from manyicl_core.method.tasks import Task

LINEAR_LAYERS = "all-linear"

Schedule = Literal["cosine", "linear", "constant"]


class LoraSpec(BaseModel):
    """Low-rank adapters.

    Attributes:
        target_modules: ``"all-linear"`` or names of linear layers.
        top_layers: adapt only so many layers, counted from the output; None: all.
        quantize_base: hold the frozen base in 4 bits (QLoRA); needs bitsandbytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=16, ge=1, le=256)
    alpha: int = Field(default=32, ge=1, le=1024)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] = LINEAR_LAYERS
    top_layers: int | None = Field(default=None, ge=1, le=1000)
    quantize_base: bool = False


class ValidationSpec(BaseModel):
    """What is measured while training.

    Attributes:
        tasks: trained tasks whose *demonstrations* are examples that are not trained on.
        sequences: how many sequences of them, at most, are scored each time.
        every: optimizer steps between two measurements; the last step is measured too.
        patience: stop after so many measurements without a new best loss; None: never. A run
            with patience ends with the weights of its best measurement.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: list[Task]
    sequences: int
    every: int
    patience: int | None = None


class TrainSpec(BaseModel):
    """Everything that decides the weights' bytes, and where the files are.

    Attributes:
        base_model: the model's public id; goes into the adapter's config.
        base_model_folder: the folder with its files.
        tasks: the tasks to train on, their examples included.
        normalization: what counts the same in a step's loss, every target token or every answer.
        batch_size: sequences in one optimizer step.
        micro_batch_size: sequences run through the model at once; a step's gradients accumulate
            over the others.
        learning_rate: peak rate of AdamW, after warm-up.
        schedule: how the rate falls after warm-up; ``cosine`` and ``linear`` fall to zero.
        lora: the adapter, or None to train all weights.
        start_folder: an adapter to go on from instead of a fresh one.
        start_sha256: its hash; part of what decides the result.
        checkpoint_every: optimizer steps between two checkpoints.
        deterministic: choose kernels that give the same bits every time, on a GPU too.
        threads: CPU threads; part of the result, as sums depend on their order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_model: str
    base_model_folder: str
    tasks: list[Task]
    objective: Objective = "many_icl"
    normalization: Normalization = "token"
    stream: StreamSettings = StreamSettings()
    n_epochs: int | None = None
    token_budget: int | None = None
    batch_size: int
    micro_batch_size: int = 1
    learning_rate: float
    schedule: Schedule = "cosine"
    warmup_fraction: float = 0.1
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    seed: int
    lora: LoraSpec | None
    start_folder: str | None = None
    start_sha256: str | None = None
    validation: ValidationSpec | None = None
    checkpoint_every: int
    deterministic: bool = False
    threads: int
