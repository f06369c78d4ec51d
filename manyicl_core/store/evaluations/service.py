"""Create, find and cancel evaluations: what the api asks for."""

import secrets
from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from manyicl_core.base_models.catalog import BaseModelEntry, base_model_folder, context_length, is_pulled
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.errors import Conflict, InvalidRequest, NotFound, Unavailable, UserError
from manyicl_core.ids import new_id
from manyicl_core.method.dataset import InvalidDataset
from manyicl_core.method.task_building import check_fits
from manyicl_core.method.tasks import Task
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.creations import forget_made
from manyicl_core.store.evaluations.options import CreateEvaluation, EvaluationOptions
from manyicl_core.store.evaluations.plan import EvaluatedWeights, planned_measurements, weights_hashes
from manyicl_core.store.evaluations.schemas import evaluation_event_object
from manyicl_core.store.events import News, add_evaluation_event, find_news
from manyicl_core.store.job_states import CANCELLED, FINAL, QUEUED
from manyicl_core.store.leases import request_cancel
from manyicl_core.store.models.service import ServedModel, served_model
from manyicl_core.store.models.weights import delete_unreferenced, hold_weights
from manyicl_core.store.pages import Page, fetch_created, fetch_page
from manyicl_core.store.quotas.service import admit_job, lock_project
from manyicl_core.store.tables import Evaluation, EvaluationEvent
from manyicl_core.store.tasks.datasets import delete_unreferenced_dataset, kept_dataset, load_dataset
from manyicl_core.store.tasks.files import read_tasks
from manyicl_core.store.waiting import tell_wait


def create_evaluation(session: Session, store: ArtifactStore, project_id: str, request: CreateEvaluation) -> Evaluation:
    """Check everything and put an evaluation into the queue.

    Raises:
        InvalidRequest: a field or a line of a file is wrong.
        NotFound: a file or a model does not exist.
        Unavailable: the base model is not on this machine.
        QuotaExceeded: too many jobs and evaluations wait.
    """
    admit_job(session, project_id)
    models = _models(session, project_id, request)
    base = next(iter(models.values())).base
    if not is_pulled(base_model_folder(base)):
        raise Unavailable(f"{base.id} is not on this machine yet; run `manyicl models pull`", "model")
    tasks = _tasks(session, store, project_id, request, models)
    evaluation = Evaluation(
        id=new_id("eval-"),
        project_id=project_id,
        state=QUEUED,
        base_model=base.id,
        models=[
            EvaluatedWeights(name=name, weights_sha256=model.weights_sha256).model_dump()
            for name, model in models.items()
        ],
        tasks=_measured_tasks(tasks, request),
        options=stored_options(request, request.forgetting),
        seed=request.seed if request.seed is not None else secrets.randbelow(2**31),
    )
    with kept_dataset(session, store, tasks) as evaluation.dataset:
        # All that is slow is done: others wait from here to the commit.
        _hold_models(session, project_id, request, models)
        lock_project(session, project_id)
        admit_job(session, project_id)
        session.add(evaluation)
        session.flush()
    total = planned_measurements(evaluation)
    add_evaluation_event(session, evaluation.id, "info", f"Created evaluation {evaluation.id}: {total} results; queued")
    tell_wait(session, evaluation)
    return evaluation


def stored_options(options: EvaluationOptions, forgetting: bool) -> dict[str, object]:
    """The options as an evaluation's row keeps them."""
    return {**options.model_dump(include=set(EvaluationOptions.model_fields)), "forgetting": forgetting}


def _models(session: Session, project_id: str, request: CreateEvaluation) -> dict[str, ServedModel]:
    """What is compared, by name, in the order of the request."""
    if (request.model is None) == (request.models is None):
        raise InvalidRequest("name one model in `model`, or several in `models`", "model")
    names = [request.model] if request.model is not None else request.models or []
    models: dict[str, ServedModel] = {}
    for index, name in enumerate(names):
        param = "model" if request.model is not None else f"models.{index}"
        if name in models:
            raise InvalidRequest(f"{name!r} is named twice; name each model once", param)
        try:
            models[name] = served_model(session, project_id, name)
        except UserError as error:
            error.param = param
            raise
        if (base := models[name].base.id) != (first := models[names[0]].base.id):
            raise InvalidRequest(f"{name!r} stands on {base} and the first model on {first}; compare one base", param)
    return models


def _hold_models(session: Session, project_id: str, request: CreateEvaluation, models: dict[str, ServedModel]) -> None:
    """Keep the models' weights until the commit; from then on the evaluation's row keeps them."""
    # In one order, so that two evaluations of the same models never wait for each other.
    for sha256 in sorted({model.weights_sha256 for model in models.values() if model.weights_sha256 is not None}):
        hold_weights(session, sha256)
    # Again, now that nobody can delete one.
    _models(session, project_id, request)


def _tasks(
    session: Session,
    store: ArtifactStore,
    project_id: str,
    request: CreateEvaluation,
    models: dict[str, ServedModel],
) -> list[Task]:
    if request.training_file is not None or request.validation_file is not None:
        base = next(iter(models.values())).base
        return _tasks_of_files(session, store, project_id, request, base)
    if request.task_definitions:
        raise InvalidRequest(
            "definitions belong to a training_file and a validation_file; give both", "task_definitions"
        )
    dataset = next((model.dataset for model in models.values() if model.dataset is not None), None)
    if dataset is None:
        raise InvalidRequest(
            "a base model, or one of another project, shows no tasks of its own; give a training_file and a "
            "validation_file, "
            "or name a model that a job of this project made",
            "training_file",
        )
    return load_dataset(store, dataset)


def _tasks_of_files(
    session: Session, store: ArtifactStore, project_id: str, request: CreateEvaluation, base: BaseModelEntry
) -> list[Task]:
    if request.training_file is None:
        raise InvalidRequest("demonstrations come from a training_file; name one", "training_file")
    if request.validation_file is None:
        raise InvalidRequest("queries come from a validation_file; name one", "validation_file")
    tasks = read_tasks(
        session, store, project_id, request.training_file, request.validation_file, request.task_definitions
    )
    longest = context_length(base)
    try:
        check_fits(tasks, load_encoder(base_model_folder(base)), longest, longest)
    except InvalidDataset as error:
        raise InvalidRequest(str(error), "validation_file", "example_too_long") from error
    return tasks


def _measured_tasks(tasks: list[Task], request: CreateEvaluation) -> list[str]:
    """The names of the tasks to measure: those asked for, or all that have queries; none beside the plain text."""
    asked = request.tasks
    queries = {task.definition.name: len(task.queries) for task in tasks}
    for index, name in enumerate(asked or []):
        if name not in queries:
            raise InvalidRequest(
                f"there is no task {name!r}; the tasks are {', '.join(list(queries)[:20])}", f"tasks.{index}"
            )
        if not queries[name]:
            raise InvalidRequest(
                f"task {name!r} has no queries; give some in a validation_file, or leave it out", f"tasks.{index}"
            )
    wanted = set(queries if asked is None else asked)
    measured = [name for name, count in queries.items() if count and name in wanted]
    if measured or request.forgetting:
        return measured
    if asked is not None:
        raise InvalidRequest("tasks: the list is empty; name some, or measure `forgetting` alone", "tasks")
    raise InvalidRequest(
        "no task has queries: the model's job had no validation file; give a training_file and a validation_file, "
        "or measure `forgetting` alone",
        "validation_file",
    )


def get_evaluation(session: Session, project_id: str, evaluation_id: str) -> Evaluation:
    """One evaluation of the project.

    Raises:
        NotFound: the project has no such evaluation.
    """
    query = select(Evaluation).where(Evaluation.id == evaluation_id, Evaluation.project_id == project_id)
    evaluation = session.scalar(query)
    if evaluation is None:
        raise NotFound("evaluation", evaluation_id)
    return evaluation


def list_evaluations(session: Session, project_id: str, after: str | None, limit: int) -> Page[Evaluation]:
    """A page of evaluations, newest first, those of jobs among them."""
    query = select(Evaluation).where(Evaluation.project_id == project_id)
    return fetch_created(session, query, Evaluation.project_id, project_id, after, limit, "evaluation")


def list_evaluation_events(
    session: Session, project_id: str, evaluation_id: str, after: str | None, limit: int
) -> Page[EvaluationEvent]:
    """A page of an evaluation's events, newest first.

    Raises:
        NotFound: the project has no such evaluation, or ``after`` is not an event of it.
    """
    evaluation = get_evaluation(session, project_id, evaluation_id)
    cursor = None if after is None else (evaluation_event_number(session, evaluation.id, after),)
    query = select(EvaluationEvent).where(EvaluationEvent.evaluation_id == evaluation.id)
    return fetch_page(session, query, (EvaluationEvent.number,), cursor, limit)


def evaluation_event_number(session: Session, evaluation_id: str, event_id: str) -> int:
    """The place of an evaluation's event among all events.

    Raises:
        NotFound: the evaluation has no such event.
    """
    query = select(EvaluationEvent.number).where(
        EvaluationEvent.id == event_id, EvaluationEvent.evaluation_id == evaluation_id
    )
    number = session.scalar(query)
    if number is None:
        raise NotFound("event", event_id, "after")
    return number


def evaluation_news(session: Session, told: Mapping[str, int]) -> dict[str, News]:
    """What is new in the stories of evaluations, behind the events with the given numbers."""
    return find_news(session, Evaluation, EvaluationEvent, EvaluationEvent.evaluation_id, evaluation_event_object, told)


def cancel_evaluation(session: Session, project_id: str, evaluation_id: str) -> Evaluation:
    """Cancel a waiting evaluation at once, or ask a running one's worker to stop it.

    Raises:
        NotFound: the project has no such evaluation.
        Conflict: the evaluation is over, or is part of a job.
    """
    evaluation = get_evaluation(session, project_id, evaluation_id)
    if evaluation.job_id is not None and evaluation.state not in FINAL:
        raise Conflict(f"The evaluation is part of the job {evaluation.job_id}; cancel the job", None)
    done = request_cancel(session, evaluation)
    forget_made(session, evaluation.id)
    if done == "cancelled":
        add_evaluation_event(session, evaluation.id, "info", "The evaluation was cancelled before it started")
    elif done == "asked":
        add_evaluation_event(session, evaluation.id, "info", "Cancelling the evaluation")
    session.refresh(evaluation)
    if evaluation.state in FINAL and evaluation.state != CANCELLED:
        raise Conflict(
            f"The evaluation is over ({evaluation.state}); only a waiting or running one can be cancelled", None
        )
    return evaluation


def delete_what_only_it_needed(store: ArtifactStore, evaluation: Evaluation) -> None:
    """An evaluation is over: a model may have been deleted meanwhile. Call it after the transaction that ended it."""
    delete_unreferenced(store, weights_hashes(evaluation))
    delete_unreferenced_dataset(store, evaluation.dataset)
