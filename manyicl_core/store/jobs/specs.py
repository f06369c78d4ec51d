"""From a job's row to the spec of its trainer."""

from pathlib import Path

from manyicl_core.contract.train_spec import LoraSpec, TrainSpec, ValidationSpec
from manyicl_core.method.sequences import StreamSettings
from manyicl_core.method.tasks import Task
from manyicl_core.store.jobs.options import (
    CHECKPOINT_EVERY,
    DEFAULT_FULL_LEARNING_RATE,
    DEFAULT_LEARNING_RATE,
    ManyiclOptions,
    ValidationOptions,
)
from manyicl_core.store.jobs.parts import Part
from manyicl_core.store.tables import Job


def train_spec(
    job: Job, tasks: list[Task], part: Part, model_folder: Path, start_folder: Path | None, threads: int
) -> TrainSpec:
    """What the trainer is to do: the part's tasks only, without their queries."""
    options = ManyiclOptions.model_validate(job.options)
    trained = [
        task
        for task in tasks
        if task.definition.role == "train" and (part.task is None or task.definition.name == part.task)
    ]
    full = options.adaptation == "full"
    learning_rate = DEFAULT_FULL_LEARNING_RATE if full else DEFAULT_LEARNING_RATE
    return TrainSpec(
        base_model=job.base_model,
        base_model_folder=str(model_folder),
        tasks=[task.model_copy(update={"queries": []}) for task in trained],
        objective=options.dedicated_objective if options.objective == "dedicated" else options.objective,
        normalization=options.normalization,
        stream=StreamSettings(
            max_sequence_tokens=options.max_sequence_tokens,
            max_demonstrations=options.max_demonstrations,
            demonstrations=options.demonstrations,
            mixing=options.mixing,
            temperature=options.mixing_temperature,
        ),
        n_epochs=job.hyperparameters["n_epochs"],
        token_budget=None if options.token_budget is None else max(1, options.token_budget // part.count),
        batch_size=job.hyperparameters["batch_size"],
        micro_batch_size=options.optimizer.micro_batch_size,
        learning_rate=learning_rate * job.hyperparameters["learning_rate_multiplier"],
        schedule=options.optimizer.schedule,
        warmup_fraction=options.optimizer.warmup_fraction,
        weight_decay=options.optimizer.weight_decay,
        max_gradient_norm=options.optimizer.max_gradient_norm,
        seed=job.seed,
        lora=None if full else LoraSpec.model_validate(options.lora.model_dump()),
        start_folder=None if start_folder is None else str(start_folder),
        start_sha256=job.start_sha256,
        validation=_validation(options.validation, trained),
        checkpoint_every=CHECKPOINT_EVERY,
        deterministic=options.deterministic,
        threads=threads,
    )


def _validation(options: ValidationOptions | None, trained: list[Task]) -> ValidationSpec | None:
    with_queries = [task for task in trained if task.queries]
    if options is None or not with_queries:
        return None
    return ValidationSpec(
        tasks=[task.model_copy(update={"demonstrations": task.queries, "queries": []}) for task in with_queries],
        sequences=options.sequences,
        every=options.every,
        patience=options.patience,
    )
