"""From a job's row to the specs of its processes."""

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from manyicl_core.contract.evaluation_spec import EvaluationSpec, Point
from manyicl_core.contract.train_spec import LoraSpec, TrainSpec
from manyicl_core.method.sequences import StreamSettings
from manyicl_core.method.tasks import Task
from manyicl_core.store.jobs.options import CHECKPOINT_EVERY, DEFAULT_LEARNING_RATE, ManyiclOptions
from manyicl_core.store.tables import Checkpoint, Job, JobResult


def train_spec(job: Job, tasks: list[Task], model_folder: Path, threads: int) -> TrainSpec:
    """What the trainer is to do: the trained tasks only, without their queries."""
    options = ManyiclOptions.model_validate(job.options)
    return TrainSpec(
        base_model=job.base_model,
        base_model_folder=str(model_folder),
        tasks=[task.model_copy(update={"queries": []}) for task in tasks if task.definition.role == "train"],
        objective=options.objective,
        normalization=options.normalization,
        stream=StreamSettings(
            max_sequence_tokens=options.max_sequence_tokens,
            max_demonstrations=options.max_demonstrations,
            demonstrations=options.demonstrations,
            mixing=options.mixing,
            temperature=options.mixing_temperature,
        ),
        n_epochs=job.hyperparameters["n_epochs"],
        token_budget=options.token_budget,
        batch_size=job.hyperparameters["batch_size"],
        micro_batch_size=options.optimizer.micro_batch_size,
        learning_rate=DEFAULT_LEARNING_RATE * job.hyperparameters["learning_rate_multiplier"],
        schedule=options.optimizer.schedule,
        warmup_fraction=options.optimizer.warmup_fraction,
        weight_decay=options.optimizer.weight_decay,
        max_gradient_norm=options.optimizer.max_gradient_norm,
        seed=job.seed,
        lora=LoraSpec.model_validate(options.lora.model_dump()) if options.adaptation == "lora" else None,
        checkpoint_every=CHECKPOINT_EVERY,
        deterministic=options.deterministic,
        threads=threads,
    )


def evaluation_spec(
    session: Session, job: Job, tasks: list[Task], model_folder: Path, adapter_folder: Path, threads: int
) -> EvaluationSpec:
    """What is left to evaluate: an earlier attempt's results stand."""
    options = ManyiclOptions.model_validate(job.options).evaluation
    done = {
        (task, k) for task, k in session.execute(select(JobResult.task, JobResult.k).where(JobResult.job_id == job.id))
    }
    with_queries = [task for task in tasks if task.queries]
    return EvaluationSpec(
        base_model_folder=str(model_folder),
        adapter_folder=str(adapter_folder),
        tasks=with_queries,
        points=[
            Point(task=task.definition.name, k=k)
            for task in with_queries
            for k in options.shots
            if (task.definition.name, k) not in done
        ],
        queries=options.queries,
        draws=options.draws,
        seed=job.seed,
        threads=threads,
    )


def latest_checkpoint(session: Session, job_id: str) -> Checkpoint | None:
    """The checkpoint to go on from, if there is one."""
    return session.scalar(
        select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step.desc()).limit(1)
    )
