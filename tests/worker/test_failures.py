"""What an attempt cannot do: it is tried again, and then told in its own words; what is trained is kept."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from obstore.exceptions import NotSupportedError
from openai import OpenAI

from manyicl_core.contract.progress import CheckpointSaved, Trained
from manyicl_core.errors import StorageAway
from manyicl_core.objects import open_store, put_weights
from manyicl_core.settings import get_settings
from manyicl_core.store.jobs.checkpoints import record_checkpoint, record_trained
from manyicl_core.store.jobs.evaluation import start_evaluation
from manyicl_core.store.jobs.parts import parts_of
from manyicl_core.store.jobs.recorder import record_started, record_step
from manyicl_core.store.leases import Claim, claim_work, give_up_lease
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Batch, Context, Evaluation, Job, Leased
from manyicl_core.store.tasks.datasets import load_dataset
from tests.api.test_evaluations import files
from tests.batches import create_batch, request
from tests.contexts import PASTED, create_context, get_context
from tests.evaluations import create_evaluation, get_evaluation
from tests.finished_jobs import STEP, started
from tests.jobs import create_job
from tests.services import BASE_MODEL
from tests.unit.random_adapter import save_random_adapter
from worker.batches import run_batch
from worker.context_building import build_context
from worker.evaluation import run_evaluation
from worker.supervisor import run_job

ATTEMPTS = 4


def row_of(table: type[Leased], id_: str) -> Leased:
    with transaction() as session:
        row = session.get_one(table, id_)
        session.expunge(row)
    return row


def broken(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise error

    return fail


KINDS: dict[str, tuple[type[Leased], Callable[[OpenAI], str], Callable[[str], None], str]] = {
    "job": (Job, lambda client: create_job(client).id, run_job, "worker.supervisor:load_dataset"),
    "evaluation": (
        Evaluation,
        lambda client: str(create_evaluation(client, model=BASE_MODEL, **files(client))["id"]),
        run_evaluation,
        "worker.evaluation:load_dataset",
    ),
    "context": (
        Context,
        lambda client: str(create_context(client, **PASTED)["id"]),
        build_context,
        "worker.context_building:load_encoder",
    ),
    "batch": (Batch, lambda client: create_batch(client, [request("1")]).id, run_batch, "worker.batches:fetch_input"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (NotSupportedError("S3 has no copy\nDebug"), "internal_error", "NotSupportedError: S3 has no copy)"),
        (OSError(28, "No space left on device"), "disk_full", "disk is full"),
        (StorageAway("The artifact store does not answer"), "storage_away", "does not answer"),
    ],
    ids=["unexpected", "disk", "storage"],
)
def test_what_nobody_expected_is_tried_again_and_ends_the_work_in_its_own_words(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch, kind: str, error: Exception, code: str, words: str
) -> None:
    table, create, run, place = KINDS[kind]
    id_ = create(client)
    module, name = place.split(":")
    monkeypatch.setattr(importlib.import_module(module), name, broken(error))
    for losses in range(1, ATTEMPTS):
        run(id_)
        row = row_of(table, id_)
        assert (row.state, row.infrastructure_failures) == ("running", losses)
    run(id_)
    row = row_of(table, id_)
    assert (row.state, row.error_code) == ("failed", code)
    assert row.error_message is not None and words in row.error_message
    assert "Debug" not in row.error_message
    if kind == "job":
        events = [event for event in client.fine_tuning.jobs.list_events(id_) if event.level in ("warn", "error")]
        assert [event.level for event in events] == ["error", *["warn"] * (ATTEMPTS - 1)]
        assert all(words in event.message for event in events)


def test_what_passes_costs_an_attempt_and_no_more(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    context_id = str(create_context(client, **PASTED)["id"])
    with monkeypatch.context() as patched:
        patched.setattr("worker.context_building.load_encoder", broken(NotSupportedError("not now")))
        build_context(context_id)
    build_context(context_id)
    assert get_context(client, context_id)["status"] == "succeeded"
    assert row_of(Context, context_id).infrastructure_failures == 1


def claimed(job_id: str) -> Claim[Job]:
    with transaction() as session:
        claim = claim_work(session, Job, job_id, 60)
    assert claim is not None
    return claim


def test_a_recorded_checkpoint_sets_the_count_of_losses_back(client: OpenAI) -> None:
    job_id = create_job(client).id
    [part] = parts_of(row_of(Job, job_id), [])  # type: ignore[arg-type]
    for step in (1, 2):
        for losses in range(3):
            claim = claimed(job_id)
            assert row_of(Job, job_id).infrastructure_failures == losses
            with transaction() as session:
                give_up_lease(session, claim, lost=True)
        claim = claimed(job_id)
        with transaction() as session:
            record_started(session, claim, part, started(steps=2))
            record_step(session, claim, part, STEP.model_copy(update={"step": step}))
            saved = CheckpointSaved(step=step, folder="f")
            record_checkpoint(session, claim, part, saved, f"jobs/{job_id}/{step}", [], "0" * 64)
            give_up_lease(session, claim, lost=False)
        assert row_of(Job, job_id).infrastructure_failures == 0


def trained_job(client: OpenAI, tiny_model: Path, folder: Path, **options: Any) -> str:
    """A job of which all is trained, with random weights, and nothing is measured; a worker may take it up."""
    job_id = create_job(client, **options).id
    store = open_store(str(get_settings().storage_url))
    claim = claimed(job_id)
    with transaction() as session:
        job = session.get_one(Job, job_id)
        tasks = load_dataset(store, job.dataset)
        parts = parts_of(job, tasks)
        for part in parts:
            weights = put_weights(store, save_random_adapter(tiny_model, folder / str(part.number), part.number))
            record_started(session, claim, part, started(steps=1))
            record_step(session, claim, part, STEP)
            trained = Trained(step=1, folder="f", peak_memory_bytes=1)
            record_trained(session, claim, part, trained, weights)
        start_evaluation(session, claim, tasks, parts)
        give_up_lease(session, claim, lost=False)
    return job_id


def no_base_model(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The evaluation's process finds no model, and says so."""
    monkeypatch.setattr("worker.evaluation.model_folder", lambda _: folder)


def no_process(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The evaluation's process ends without a word."""
    monkeypatch.setattr("worker.evaluation.PROCESS", "tests.no_such_module")


def no_comparison(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The worker itself fails."""
    monkeypatch.setattr("worker.evaluation.left_to_measure", lambda _: 0)
    monkeypatch.setattr("worker.evaluation.compare_models", broken(ZeroDivisionError("division by zero")))


@pytest.mark.parametrize(
    ("break_", "attempts", "code", "words", "options"),
    [
        (no_base_model, 1, "engine_error", "empty has no tokenizer.json", {}),
        (no_process, ATTEMPTS, "worker_lost", "exit status 1", {"objective": "dedicated"}),
        (no_comparison, ATTEMPTS, "internal_error", "ZeroDivisionError: division by zero", {"evaluate": False}),
    ],
    ids=["failed", "died", "unexpected"],
)
def test_a_trained_job_keeps_its_models_when_its_evaluation_fails_and_that_can_be_repeated(
    client: OpenAI,
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: Path,
    tmp_path: Path,
    break_: Callable[[pytest.MonkeyPatch, Path], None],
    attempts: int,
    code: str,
    words: str,
    options: dict[str, Any],
) -> None:
    job_id = trained_job(client, tiny_model, tmp_path, **options)
    with monkeypatch.context() as patched:
        break_(patched, tmp_path / "empty")
        for _ in range(attempts):
            assert client.fine_tuning.jobs.retrieve(job_id).status == "running"
            run_job(job_id)
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert (job.status, job.error) == ("succeeded", None)
    assert job.model_extra is not None
    told = job.model_extra["manyicl"]
    models = list(told["models"].values()) or [job.fine_tuned_model]
    assert len(job.result_files) == 1 + len(models) == 1 + (2 if "objective" in options else 1)
    for name in [*models, BASE_MODEL]:
        assert client.models.retrieve(name).id == name
    assert all(client.files.content(file_id).read() for file_id in job.result_files)

    # The failure is told, in the job, its events and the evaluation.
    assert told["evaluation_status"] == "failed"
    assert told["evaluation_error"]["code"] == code
    assert words in told["evaluation_error"]["message"]
    assert get_evaluation(client, told["evaluation"])["error"] == told["evaluation_error"]
    [event] = [event for event in client.fine_tuning.jobs.list_events(job_id) if "/v1/evaluations" in event.message]
    assert event.level == "warn"
    assert words in event.message
    assert isinstance(event.data, dict)

    # And what was not measured is measured when the event's bodies are sent.
    assert sorted(body["models"][1] for body in event.data["repeat"]) == sorted(models)
    for body in event.data["repeat"]:
        again = create_evaluation(client, **body)["id"]
        run_evaluation(again)
        done = get_evaluation(client, again)
        assert done["status"] == "succeeded", done["error"]
        assert bool(done["results"]) == options.get("evaluate", True)
        assert len(done["plain_text"]) == 2


def test_a_trained_job_succeeds_though_the_store_takes_no_more_files(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
) -> None:
    job_id = trained_job(client, tiny_model, tmp_path, evaluate=False)
    monkeypatch.setattr("worker.evaluation.left_to_measure", lambda _: 0)
    monkeypatch.setattr("manyicl_core.store.jobs.recorder.weights_file", broken(OSError(28, "No space left on device")))
    for _ in range(ATTEMPTS):
        run_job(job_id)
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert (job.status, job.result_files) == ("succeeded", [])
    assert client.models.retrieve(str(job.fine_tuned_model))
    assert any(
        "result files could not be stored" in event.message for event in client.fine_tuning.jobs.list_events(job_id)
    )
