"""Run one evaluation: on its own, or as the end of a job."""

import sys
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.orm import Session

from manyicl_core.contract.progress import CurveResult, EvaluationResult, Message, PlainTextResult
from manyicl_core.objects import ArtifactStore, sha256_of
from manyicl_core.store.evaluations import recorder
from manyicl_core.store.evaluations.plan import evaluated_weights
from manyicl_core.store.evaluations.predictions import items_key
from manyicl_core.store.evaluations.reports import read_report
from manyicl_core.store.evaluations.service import delete_what_only_it_needed
from manyicl_core.store.evaluations.specs import evaluation_spec, left_to_measure
from manyicl_core.store.leases import Claim
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Evaluation, Leased
from manyicl_core.store.tasks.datasets import load_dataset
from worker.attempt import Attempt, Kind, attempt, fetched_weights, model_folder
from worker.comparisons import compare_models

PROCESS = "manyicl_core.evaluation"


def run_evaluation(evaluation_id: str) -> None:
    """Take the evaluation if it waits for a worker, and see it through."""
    attempt(EVALUATION, evaluation_id)


def measure(work: Attempt[Leased], evaluation: Evaluation) -> None:
    """Measure what is not measured yet, compare the models, and end the evaluation well.

    Args:
        work: an attempt at the evaluation, or at the job that it is part of.
        evaluation: it is running.

    Raises:
        ProcessDied: the process ended without a word, or was stopped.
        WorkFailed: the process said why it cannot go on.
    """
    _measure_rest(work, evaluation)
    with transaction() as session:
        results = read_report(session, evaluation).results
    found = compare_models(work.store, evaluated_weights(evaluation), results)
    work.write(lambda session: recorder.record_success(session, work.claim, evaluation.id, work.store, *found))


def _measure_rest(work: Attempt[Leased], evaluation: Evaluation) -> None:
    folder = work.scratch / "evaluation"
    folder.mkdir()
    tasks = load_dataset(work.store, evaluation.dataset)
    base = model_folder(evaluation.base_model)
    hashes = {
        weights.name: weights.weights_sha256
        for weights in evaluated_weights(evaluation)
        if weights.weights_sha256 is not None
    }
    folders = {name: folder / f"weights-{number}" for number, name in enumerate(hashes)}
    with transaction() as session:
        spec = evaluation_spec(session, evaluation, tasks, base, folders, work.settings.threads)
    left = left_to_measure(spec)
    if left == 0:
        return
    for name, sha256 in hashes.items():
        fetched_weights(work.store, sha256, folders[name])
    work.write(lambda session: recorder.record_started(session, work.claim, evaluation.id, left))
    command = [sys.executable, "-m", PROCESS, str(folder)]
    work.run_process(command, spec, folder, lambda message: _record(work, evaluation.id, folder, message))


def _record(work: Attempt[Leased], evaluation_id: str, folder: Path, message: Message) -> None:
    match message:
        case EvaluationResult():
            items = folder / message.items_file
            key = items_key(evaluation_id, sha256_of(items))
            # The items first, then the row: a recorded result always has its predictions.
            work.store.put(key, items)
            work.write(lambda session: recorder.record_result(session, work.claim, evaluation_id, message, key))
        case CurveResult():
            work.write(lambda session: recorder.record_curve(session, work.claim, evaluation_id, message))
        case PlainTextResult():
            work.write(lambda session: recorder.record_plain_text(session, work.claim, evaluation_id, message))
        case _:
            raise AssertionError(f"an evaluation does not report {message.type!r}")


def _run(work: Attempt[Evaluation]) -> None:
    measure(work, work.row)
    delete_what_only_it_needed(work.store, work.row)


def _fail(store: ArtifactStore, claim: Claim[Evaluation], code: str, message: str) -> None:
    _end_badly(store, claim, lambda session: recorder.record_failure(session, claim, code, message))


def _cancel(store: ArtifactStore, claim: Claim[Evaluation]) -> None:
    _end_badly(store, claim, lambda session: recorder.record_cancelled(session, claim))


def _end_badly(store: ArtifactStore, claim: Claim[Evaluation], record: Callable[[Session], None]) -> None:
    """Write a failure or a cancel, and tidy up."""
    with transaction() as session:
        record(session)
        evaluation = session.get_one(Evaluation, claim.id)
    delete_what_only_it_needed(store, evaluation)


EVALUATION = Kind(table=Evaluation, run=_run, fail=_fail, cancel=_cancel)
