"""Plan a job without queueing it: what it would do, and what that takes on a worker."""

from dataclasses import asdict, dataclass

import numpy as np
from sqlalchemy.orm import Session

from manyicl_core.base_models.catalog import context_length
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.contract.train_spec import LoraSpec, TrainSpec
from manyicl_core.method.encoding import Encoder
from manyicl_core.method.leaks import NearLeak, near_leaks
from manyicl_core.method.objectives import stands_alone
from manyicl_core.method.plan import Counts, count_sequences, few_shot_answers
from manyicl_core.method.preview import show_sequence
from manyicl_core.method.sequences import DoesNotFit, EncodedTask, SequenceStream
from manyicl_core.method.task_building import QueryDoesNotFit, unfit_queries
from manyicl_core.method.tasks import Task
from manyicl_core.objects import ArtifactStore
from manyicl_core.settings import get_settings
from manyicl_core.store.hints import JOBS_QUEUE
from manyicl_core.store.jobs.options import CreateJob
from manyicl_core.store.jobs.parts import parts_of
from manyicl_core.store.jobs.plan_schemas import (
    EstimateObject,
    Misfit,
    NearLeakObject,
    PlannedAnswer,
    PlannedSequence,
    PlanObject,
    TaskPlan,
)
from manyicl_core.store.jobs.service import CheckedJob, check_request
from manyicl_core.store.jobs.specs import train_spec
from manyicl_core.store.measurements.estimate import RunWork, estimate_run, micro_batches
from manyicl_core.store.measurements.service import (
    Asked,
    Found,
    find_measurement,
    measured_kind,
    want_measurement,
)
from manyicl_core.store.workers import Places, job_places

# Counted one by one in about ten seconds.
_MOST_COUNTED = 500_000


@dataclass(frozen=True, slots=True)
class _Run:
    """One trainer process of a job.

    Attributes:
        counts: its sequences, or the first of very many.
        validated: the sequences of one validation.
        sequences: how many it has in all.
    """

    spec: TrainSpec
    stream: SequenceStream
    counts: Counts
    validated: Counts | None
    sequences: int

    @property
    def steps(self) -> int:
        return -(-self.sequences // self.spec.batch_size)

    @property
    def scale(self) -> float:
        return self.sequences / len(self.counts)

    def work(self) -> RunWork:
        """What the process has to compute."""
        spec = self.spec
        return RunWork(
            steps=self.steps,
            batches=micro_batches(self.counts, spec.batch_size, spec.micro_batch_size),
            scale=self.scale,
            checkpoint_every=spec.checkpoint_every,
            scored=micro_batches(self.validated, 1, 1) if self.validated is not None else None,
            validations=-(-self.steps // spec.validation.every) if spec.validation else 0,
        )


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A plan without its estimate, and what an estimate is made from."""

    plan: PlanObject
    lora: LoraSpec | None
    runs: list[_Run]

    def told(self, session: Session, project_id: str) -> PlanObject:
        """The plan with what is known of its time and memory; what is not yet, an idle worker is asked to measure."""
        if not self.runs:
            return self.plan.model_copy(update={"no_estimate": "there is nothing to train"})
        found = find_measurement(session, self.plan.model, self.lora)
        if found is not None and found.same:
            return self.plan.model_copy(update={"estimate": self._estimate(found, None)})
        asked = want_measurement(session, project_id, self.plan.model, self.lora)
        reason, seconds = _awaited(asked, job_places(session, JOBS_QUEUE))
        if found is None:
            return self.plan.model_copy(update={"no_estimate": reason, "ask_again_seconds": seconds})
        estimate = self._estimate(found, f"{_unlike(found, self.lora)}; {reason}")
        return self.plan.model_copy(update={"estimate": estimate, "ask_again_seconds": seconds})

    def _estimate(self, found: Found, note: str | None) -> EstimateObject:
        measured = found.measured
        estimates = [estimate_run(measured, run.work()) for run in self.runs]
        return EstimateObject(
            seconds=round(sum(estimate.seconds for estimate in estimates), 1),
            peak_memory_bytes=max(estimate.peak_memory_bytes for estimate in estimates),
            device=measured.device,
            dtype=measured.dtype,
            threads=measured.threads,
            measured_at=int(found.made.timestamp()),
            note=note,
        )


def _unlike(found: Found, lora: LoraSpec | None) -> str:
    """Why a measurement is not all that one could wish for."""
    if found.lora is not None and lora is not None and found.lora != measured_kind(lora):
        return f"measured with rank {found.lora.rank} instead of {lora.rank}"
    return f"measured while other work left the worker {found.measured.processor_share:.0%} of the processor it wanted"


def _awaited(asked: Asked, places: Places) -> tuple[str, int]:
    """When there will be a measurement, as a sentence and as seconds after which to ask again."""
    if asked.problem is not None:
        return f"it could not be measured: {asked.problem}; it is tried again in an hour", 3600
    if asked.refused:
        return "other measurements of the project come first; plan again in a minute", 60
    if places.total == 0:
        return "no worker answers; start one with `manyicl worker` and plan again", 60
    if asked.running:
        return "a worker measures how fast it trains, for about half a minute; plan again then", 30
    if places.free == 0:
        return "all workers are busy, and jobs go before measurements; plan again when one has ended", 60
    return "a free worker will measure how fast it trains, for about half a minute; plan again then", 40


def plan_job(session: Session, store: ArtifactStore, project_id: str, request: CreateJob) -> JobPlan:
    """Check a job as its creation does, and count it through.

    Raises:
        InvalidRequest: a field or a line of a file is wrong.
        NotFound: a file or the model does not exist.
        Unavailable: the base model is not on this machine.
    """
    checked = check_request(session, store, project_id, request)
    start = checked.start
    encoder = load_encoder(start.folder)
    encoded = {
        task.definition.name: EncodedTask(task, encoder) for task in checked.tasks if task.definition.role == "train"
    }
    misfits: list[DoesNotFit | QueryDoesNotFit] = [
        misfit for task in encoded.values() for misfit in task.check_fits(start.options.max_sequence_tokens)
    ]
    fitting = _without(checked.tasks, misfits)
    misfits += unfit_queries(checked.tasks, encoder, context_length(start.base))
    specs = _specs(checked, fitting)
    runs = [_count(spec, encoded, encoder, _MOST_COUNTED // len(specs)) for spec in specs]
    job = checked.job
    tokens = _total(runs, "tokens")
    answers = _total(runs, "answers")
    few_shot = sum(few_shot_answers(run.stream, round(run.counts.tokens.sum() * run.scale)) for run in runs)
    plan = PlanObject(
        model=job.base_model,
        seed=job.seed,
        hyperparameters=job.hyperparameters,
        adapters=len(runs),
        exact=all(len(run.counts) == run.sequences for run in runs),
        sequences=sum(run.sequences for run in runs),
        steps=sum(run.steps for run in runs),
        tokens=tokens,
        target_tokens=_total(runs, "target_tokens"),
        answers=answers,
        answers_over_few_shot=round(answers / few_shot, 2) if few_shot else None,
        tasks=[task for run in runs for task in _task_plans(run)],
        does_not_fit=[_misfit(misfit) for misfit in misfits],
        near_leaks=[_near_leak(leak) for leak in near_leaks(checked.tasks)],
        sequence=_first_sequence(runs[0]) if runs else None,
    )
    return JobPlan(plan, specs[0].lora if specs else None, runs)


def _without(tasks: list[Task], misfits: list[DoesNotFit | QueryDoesNotFit]) -> list[Task]:
    """The tasks without what does not fit, and without those of which nothing is left."""
    lines = {(misfit.task, misfit.line) for misfit in misfits}
    kept = []
    for task in tasks:
        name = task.definition.name
        fitting = [example for example in task.demonstrations if (name, example.line) not in lines]
        if fitting:
            kept.append(task.model_copy(update={"demonstrations": fitting}))
    return kept


def _specs(checked: CheckedJob, tasks: list[Task]) -> list[TrainSpec]:
    """What the job's trainer processes would be told."""
    threads = get_settings().threads
    if not any(task.definition.role == "train" for task in tasks):
        return []
    folder, parts = checked.start.folder, parts_of(checked.job, tasks)
    return [train_spec(checked.job, tasks, part, folder, None, threads) for part in parts]


def _count(spec: TrainSpec, encoded: dict[str, EncodedTask], encoder: Encoder, most: int) -> _Run:
    tasks = [
        # Tokenised already, unless lines were left out.
        known
        if len((known := encoded[task.definition.name]).examples) == len(task.demonstrations)
        else EncodedTask(task, encoder)
        for task in spec.tasks
    ]
    stream = SequenceStream(tasks, spec.seed, spec.stream, stands_alone(spec.objective))
    counts = count_sequences(stream, spec.objective, spec.batch_size, spec.n_epochs, spec.token_budget, most)
    validated = _validated(spec, encoder)
    if spec.n_epochs is not None:
        return _Run(spec, stream, counts, validated, spec.n_epochs * stream.epoch_length)
    missing = max(0, (spec.token_budget or 0) - int(counts.tokens.sum()))
    return _Run(spec, stream, counts, validated, len(counts) + -int(-missing // counts.tokens.mean()))


def _validated(spec: TrainSpec, encoder: Encoder) -> Counts | None:
    if spec.validation is None:
        return None
    tasks = [EncodedTask(task, encoder) for task in spec.validation.tasks]
    stream = SequenceStream(tasks, spec.seed, spec.stream, stands_alone(spec.objective))
    return count_sequences(stream, spec.objective, 1, 1, None).first(spec.validation.sequences)


def _total(runs: list[_Run], field: str) -> int:
    return sum(round(getattr(run.counts, field).sum() * run.scale) for run in runs)


def _task_plans(run: _Run) -> list[TaskPlan]:
    plans = []
    for place, task in enumerate(run.stream.tasks):
        mine = run.counts.task == place
        demonstrations, sequences = np.unique(run.counts.demonstrations[mine], return_counts=True)
        totals = {
            field: round(getattr(run.counts, field)[mine].sum() * run.scale)
            for field in ("tokens", "target_tokens", "answers")
        }
        plans.append(
            TaskPlan(
                task=task.name,
                sequences=round(mine.sum() * run.scale),
                shots={
                    int(shots): round(number * run.scale)
                    for shots, number in zip(demonstrations, sequences, strict=True)
                },
                **totals,
            )
        )
    return plans


def _misfit(misfit: DoesNotFit | QueryDoesNotFit) -> Misfit:
    return Misfit(
        file="training" if isinstance(misfit, DoesNotFit) else "validation",
        task=misfit.task,
        line=misfit.line,
        tokens=misfit.tokens,
        limit=misfit.budget,
        message=str(misfit),
    )


def _near_leak(leak: NearLeak) -> NearLeakObject:
    return NearLeakObject(
        file=leak.part,
        task=leak.task,
        line=leak.line,
        other_task=leak.other_task,
        other_line=leak.other_line,
        words=leak.words,
        message=str(leak),
    )


def _first_sequence(run: _Run) -> PlannedSequence:
    sequence = run.stream.nth(0)
    task = next(task for task in run.spec.tasks if task.definition.name == sequence.task)
    shown = show_sequence(task, sequence, run.spec.objective)
    return PlannedSequence(
        task=sequence.task,
        tokens=len(sequence.tokens),
        text=shown.text,
        documents=list(shown.documents),
        answers=[PlannedAnswer(**asdict(answer)) for answer in shown.answers],
    )
