"""The evaluation that ends every job: base beside tuned, and what was forgotten."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from manyicl_core.ids import new_id
from manyicl_core.method.tasks import Task
from manyicl_core.store.evaluations.plan import EvaluatedWeights
from manyicl_core.store.evaluations.remaining import evaluated_examples
from manyicl_core.store.evaluations.service import stored_options
from manyicl_core.store.events import add_evaluation_event
from manyicl_core.store.job_states import RUNNING
from manyicl_core.store.jobs.checkpoints import final_checkpoint
from manyicl_core.store.jobs.options import ManyiclOptions
from manyicl_core.store.jobs.parts import Part, model_id
from manyicl_core.store.leases import Claim, hold
from manyicl_core.store.tables import Evaluation, Job, Project


def start_evaluation(session: Session, claim: Claim[Job], tasks: list[Task], parts: list[Part]) -> Evaluation:
    """The job's evaluation, once all parts are trained; an earlier attempt may have started it already.

    It runs under the job's lease and has none of its own, so that no other worker claims it. Only
    tasks with queries can be measured; a dedicated job has no model for its held-out tasks.
    """
    job = hold(session, claim)
    if (evaluation := find_evaluation(session, job.id)) is not None:
        return evaluation
    options = ManyiclOptions.model_validate(job.options).evaluation
    made = [_made_model(session, job, part) for part in parts]
    names = [task.definition.name for task in tasks if task.queries]
    evaluation = Evaluation(
        id=new_id("eval-"),
        project_id=job.project_id,
        job_id=job.id,
        state=RUNNING,
        started_at=job.started_at,
        base_model=job.base_model,
        models=[EvaluatedWeights(name=job.base_model, weights_sha256=None).model_dump()]
        + [weights.model_dump() for weights in made],
        dataset=job.dataset,
        tasks=[name for name in names if any(weights.answers(name) for weights in made)],
        options=stored_options(options, forgetting=True),
        seed=job.seed,
    )
    session.add(evaluation)
    session.flush()
    add_evaluation_event(session, evaluation.id, "info", f"Created evaluation {evaluation.id} of job {job.id}")
    return evaluation


def examples_to_evaluate(job: Job, tasks: list[Task], parts: list[Part]) -> int:
    """How many examples the evaluation of the job will let through its models: the base model and each part's."""
    options = ManyiclOptions.model_validate(job.options).evaluation
    measured = [task.definition.name for task in tasks if task.queries]
    answered = [name for name in measured if any(part.task in (None, name) for part in parts)]
    return 2 * len(answered) * evaluated_examples(options.shots, options.queries, options.draws)


def find_evaluation(session: Session, job_id: str) -> Evaluation | None:
    """The job's evaluation; there is one as soon as all parts are trained."""
    return session.scalar(select(Evaluation).where(Evaluation.job_id == job_id))


def _made_model(session: Session, job: Job, part: Part) -> EvaluatedWeights:
    trained = final_checkpoint(session, job.id, part.task)
    assert trained is not None, "a job is evaluated when all its parts are trained"
    project = session.get_one(Project, job.project_id)
    return EvaluatedWeights(
        name=model_id(job, project.name, part.task),
        weights_sha256=trained.weights_sha256,
        tasks=None if part.task is None else [part.task],
    )
