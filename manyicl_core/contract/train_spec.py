"""The trainer's input: one JSON file, written by the supervisor. No torch."""

from pydantic import BaseModel, ConfigDict, Field

from manyicl_core.method.objectives import Objective
from manyicl_core.method.tasks import Task

LINEAR_LAYERS = "all-linear"


class LoraSpec(BaseModel):
    """Low-rank adapters; ``target_modules`` is ``"all-linear"`` or names of linear layers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=16, ge=1, le=256)
    alpha: int = Field(default=32, ge=1, le=1024)
    target_modules: str | list[str] = LINEAR_LAYERS


class TrainSpec(BaseModel):
    """Everything that decides the adapter's bytes, and where the files are.

    Attributes:
        base_model: the model's public id; goes into the adapter's config.
        base_model_folder: the folder with its files.
        tasks: the tasks to train on, their examples included.
        learning_rate: peak rate of AdamW, after warm-up; it falls to zero along a cosine.
        batch_size: sequences in one optimizer step.
        checkpoint_every: optimizer steps between two checkpoints.
        threads: CPU threads; part of the result, as sums depend on their order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_model: str
    base_model_folder: str
    tasks: list[Task]
    objective: Objective = "many_icl"
    max_sequence_tokens: int
    n_epochs: int | None = None
    token_budget: int | None = None
    batch_size: int
    learning_rate: float
    warmup_fraction: float = 0.1
    max_gradient_norm: float = 1.0
    seed: int
    lora: LoraSpec
    checkpoint_every: int
    threads: int
