"""From a job's row to the specs of its processes."""

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from manyicl_core.contract.evaluation_spec import EvaluationSpec, Point
from manyicl_core.contract.train_spec import LoraSpec, TrainSpec
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
        max_sequence_tokens=options.max_sequence_tokens,
        n_epochs=job.hyperparameters["n_epochs"],
        token_budget=options.token_budget,
        batch_size=job.hyperparameters["batch_size"],
        learning_rate=DEFAULT_LEARNING_RATE * job.hyperparameters["learning_rate_multiplier"],
        seed=job.seed,
        lora=LoraSpec(rank=options.lora.rank, alpha=options.lora.alpha, target_modules=options.lora.target_modules),
        checkpoint_every=CHECKPOINT_EVERY,
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
