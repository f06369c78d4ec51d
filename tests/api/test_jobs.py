import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from sqlalchemy import func, select

from manyicl_core.ids import new_id
from manyicl_core.objects import open_store
from manyicl_core.settings import get_settings
from manyicl_core.store.evaluations import service as evaluations
from manyicl_core.store.jobs import planning, service
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Model, Project
from tests.evaluations import cancel_evaluation, create_evaluation
from tests.finished_jobs import finish
from tests.jobs import TASKS, create_job, example_lines, upload
from tests.quotas import project_of
from tests.services import BASE_MODEL
from tests.tuned_model import add_tuned_model


def talk(*contents: str) -> dict[str, Any]:
    """A conversation of the task ``sum``, which is known by its instruction."""
    roles = ["user", "assistant"] * (len(contents) // 2)
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    return {"messages": [{"role": "system", "content": "Add."}, *messages]}


def test_a_created_job_has_every_field_and_waits(client: OpenAI) -> None:
    job = create_job(client)
    assert job.id.startswith("ftjob-")
    assert job.status == "queued"
    assert (job.model, job.seed, job.error, job.fine_tuned_model) == (BASE_MODEL, 7, None, None)
    assert job.result_files == []
    assert job.hyperparameters.n_epochs == 2
    assert job.model_extra is not None
    options = job.model_extra["manyicl"]["options"]
    assert options["objective"] == "many_icl"
    assert options["evaluation"] == {"shots": [0, 2], "queries": 3, "draws": 1, "curve_shots": 0}
    assert client.fine_tuning.jobs.retrieve(job.id) == job


def test_jobs_are_listed_newest_first_and_filtered_by_metadata(client: OpenAI) -> None:
    training = upload(client, example_lines(0, 3))
    made = [
        client.fine_tuning.jobs.create(model=BASE_MODEL, training_file=training, metadata={"run": str(number)}).id
        for number in range(3)
    ]
    assert [job.id for job in client.fine_tuning.jobs.list(limit=1)] == made[::-1]
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"run": "1"})] == [made[1]]
    without = client.fine_tuning.jobs.create(model=BASE_MODEL, training_file=training).id
    assert [job.id for job in client.fine_tuning.jobs.list(extra_query={"metadata": "null"})] == [without]
    with pytest.raises(openai.BadRequestError, match="name each key once"):
        client.get("/fine_tuning/jobs?metadata[run]=1&metadata[run]=2", cast_to=object)


def test_events_come_newest_first_in_pages(client: OpenAI) -> None:
    job = create_job(client)
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=1))
    assert [event.message.split()[0] for event in events[-2:]] == ["Files", "Created"]
    assert all(event.object == "fine_tuning.job.event" for event in events)


def test_a_waiting_job_is_cancelled_at_once_and_cancelling_twice_is_harmless(client: OpenAI) -> None:
    job = create_job(client)
    cancelled = client.fine_tuning.jobs.cancel(job.id)
    assert cancelled.status == "cancelled"
    assert cancelled.finished_at is not None
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"manyicl": {"objectiv": "many_icl"}}, "manyicl.objectiv"),
        ({"manyicl": {"objective": "magic"}}, "manyicl.objective"),
        ({"manyicl": {"lora": {"rank": 0}}}, "manyicl.lora.rank"),
        ({"manyicl": {"lora": {"target_modules": 3}}}, "manyicl.lora.target_modules"),
        ({"manyicl": {"lora": {"target_modules": ["q_proj", "nope"]}}}, "manyicl.lora.target_modules"),
        ({"manyicl": {"max_sequence_tokens": True}}, "manyicl.max_sequence_tokens"),
        ({"manyicl": {"tasks": [{"name": "a", "metric": "luck"}]}}, "manyicl.tasks.0.metric"),
        ({"manyicl": {"evaluation": {"shots": [-1]}}}, "manyicl.evaluation.shots.0"),
        ({"manyicl": {"evaluation": {"shots": [0]}}}, "validation_file"),
        ({"manyicl": {"adaptation": "full", "lora": {"rank": 4}}}, "manyicl.lora"),
        ({"manyicl": {"validation": {"patience": 3}}}, "validation_file"),
        ({"model": f"ft:{BASE_MODEL}:p::12345678:ckpt-step-10"}, "model"),
        ({"manyicl": {"tasks": [{**task, "role": "heldout"} for task in TASKS]}}, "manyicl.tasks"),
        ({"method": {"type": "dpo"}}, "method.type"),
        ({"suffix": "has space"}, "suffix"),
        ({"speed": 9}, "speed"),
        ({"training_file": "file-missing"}, "training_file"),
        ({"model": "gpt-99"}, "model"),
        ({"manyicl": {"max_sequence_tokens": 100_000}}, "manyicl.max_sequence_tokens"),
    ],
)
def test_a_wrong_field_is_named(client: OpenAI, body: dict[str, Any], param: str) -> None:
    training = upload(client, example_lines(0, 3))
    request = {"model": BASE_MODEL, "training_file": training, **body}
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
        client.post("/fine_tuning/jobs", body=request, cast_to=object)
    assert refused.value.param == param
    assert client.fine_tuning.jobs.list().data == []


@pytest.mark.parametrize(
    ("training", "validation", "expected"),
    [
        ([{"task": "colour", "input": "x", "output": "green"}], [], "line 4: 'green' is not a label of task 'colour'"),
        ([{"task": "sum", "input": "word " * 400, "output": "1"}], [], "line 4: the example of task 'sum' takes"),
        (
            [],
            [{"task": "sum", "input": "word " * 4000, "output": "1"}],
            "line 1 of the validation file: the query of task 'sum' takes",
        ),
        ([{"task": "other", "input": "x", "output": "y"}], [], "line 4: the training file has task 'other'"),
        (
            [],
            [{"task": "sum", "input": " 0 AND 0", "output": "0"}],
            "line 1 of the validation file: the same input is on line 2 of the training file",
        ),
        (
            [],
            [{"task": "parity", "input": "Thing 0", "output": "even"}],
            "line 1 of the validation file: the same input is on line 1 of the training file "
            "(tasks 'parity' and 'colour')",
        ),
        (
            [{"task": "parity", "input": "THING 0", "output": "even"}],
            [],
            "line 4 of the training file: the same input is on line 1 of the training file "
            "(tasks 'parity' and 'colour')",
        ),
        (
            [talk("word " * 200, "1", "and now?", "2")],
            [],
            "line 4: the example of task 'sum' takes",
        ),
    ],
)
def test_a_wrong_line_is_named_when_the_job_is_created(
    client: OpenAI, training: list[dict[str, Any]], validation: list[dict[str, Any]], expected: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.create(
            model=BASE_MODEL,
            training_file=upload(client, example_lines(0, 1) + training),
            validation_file=upload(client, validation) if validation else None,
            extra_body={"manyicl": {"tasks": TASKS, "max_sequence_tokens": 256}},
        )
    assert expected in refused.value.message


def test_chat_lines_are_grouped_by_their_system_message(client: OpenAI) -> None:
    lines = [
        {
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": f"{system} {number}"},
                {"role": "assistant", "content": "yes"},
            ]
        }
        for system in ("Is it round?", "Is it heavy?")
        for number in range(2)
    ]
    job = client.fine_tuning.jobs.create(model=BASE_MODEL, training_file=upload(client, lines))
    events = [event.message for event in client.fine_tuning.jobs.list_events(job.id)]
    assert any("2 tasks to train" in message for message in events), json.dumps(events)


def test_near_leaks_are_warned_of_ten_by_name_and_all_by_number(client: OpenAI) -> None:
    story = "had {} pens and gave some of them to a good friend"
    job = client.fine_tuning.jobs.create(
        model=BASE_MODEL,
        training_file=upload(client, [{"task": "sum", "input": f"Ann {story.format(7)}", "output": "7"}]),
        validation_file=upload(
            client,
            [{"task": "sum", "input": f"Boy {number} {story.format(9)}", "output": "9"} for number in range(12)],
        ),
    )
    events = list(client.fine_tuning.jobs.list_events(job.id))[::-1]
    warnings = [event for event in events if event.level == "warn"]
    assert len(warnings) == 11
    assert warnings[0].message.startswith("line 1 of the validation file (task 'sum') shares 10 words with line 1 of")
    assert warnings[0].data == {
        "task": "sum",
        "part": "validation",
        "line": 1,
        "other_task": "sum",
        "other_line": 1,
        "words": "had # pens and gave some of them to a",
    }
    assert warnings[-1].message.startswith("Near leaks: 12 tested examples share")


def test_conversations_with_weights_make_a_job(client: OpenAI) -> None:
    lines = [talk("1 and 1", "2", f"and {number}?", str(number)) for number in range(3)]
    for line in lines:
        line["messages"][-1]["weight"] = 0
    queries = [talk("2 and 2", "4", "and 5?", "9")]
    job = client.fine_tuning.jobs.create(
        model=BASE_MODEL, training_file=upload(client, lines), validation_file=upload(client, queries)
    )
    assert job.status == "queued"


def test_deleting_the_file_does_not_harm_its_job(client: OpenAI) -> None:
    job = create_job(client)
    client.files.delete(job.training_file)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "queued"


def test_data_stays_as_long_as_a_job_a_model_or_an_evaluation_needs_it(
    client: OpenAI, tiny_model: Path, tmp_path: Path
) -> None:
    store = open_store(str(get_settings().storage_url))
    others = set(store.names("datasets"))
    # Data that no other test has.
    training, queries = upload(client, example_lines(5000, 6)), upload(client, example_lines(6000, 3))
    first, second = (
        client.fine_tuning.jobs.create(model=BASE_MODEL, training_file=training, validation_file=queries).id
        for _ in range(2)
    )
    [dataset] = set(store.names("datasets")) - others
    client.fine_tuning.jobs.cancel(first)
    finish(second, tiny_model, tmp_path)
    model = str(client.fine_tuning.jobs.retrieve(second).fine_tuned_model)
    evaluation = create_evaluation(client, model=model)
    client.models.delete(model)
    assert dataset in store.names("datasets")
    cancel_evaluation(client, evaluation["id"])
    assert dataset not in store.names("datasets")
    waiting = client.fine_tuning.jobs.create(model=BASE_MODEL, training_file=training, validation_file=queries).id
    assert dataset in store.names("datasets")
    client.fine_tuning.jobs.cancel(waiting)
    assert dataset not in store.names("datasets")


def test_a_job_that_has_not_trained_has_no_checkpoints(client: OpenAI) -> None:
    job = create_job(client)
    assert client.fine_tuning.jobs.checkpoints.list(job.id).data == []
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.checkpoints.list("ftjob-missing")
    with pytest.raises(openai.NotFoundError) as refused:
        client.fine_tuning.jobs.checkpoints.list(job.id, after="ftckpt_missing")
    assert refused.value.param == "after"


def test_nothing_is_locked_while_the_data_of_a_request_is_looked_through(
    client: OpenAI, api_key: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = add_tuned_model(client, tiny_model, tmp_path)
    with transaction() as session:
        row = session.get_one(Model, model)
        row.adaptation = "full"  # a job goes on from it whatever its layers are
        weights = row.weights_sha256
    project_id = project_of(api_key)
    locked = []

    def look(*_: object) -> list[Any]:
        with transaction() as session:
            session.execute(
                select(Project.id).where(Project.id == project_id).with_for_update(nowait=True, key_share=True)
            )
            free = func.pg_try_advisory_xact_lock(func.hashtextextended(weights, 0))
            locked.append(not session.scalar(select(free)))
        return []

    for module, step in ((service, "near_leaks"), (planning, "near_leaks"), (evaluations, "check_fits")):
        monkeypatch.setattr(module, step, look)
    files = {
        "training_file": upload(client, example_lines(0, 12)),
        "validation_file": upload(client, example_lines(100, 4)),
    }
    tasks = {"tasks": TASKS, "max_sequence_tokens": 128}
    client.fine_tuning.jobs.create(model=model, **files, extra_body={"manyicl": tasks})
    client.post("/fine_tuning/jobs/plan", body={"model": model, **files, "manyicl": tasks}, cast_to=object)
    create_evaluation(client, model=model, task_definitions=TASKS, **files)
    assert locked == [False] * 3


def test_checkpoints_name_the_models_that_there_are_also_after_the_project_is_renamed(
    client: OpenAI, api_key: str, tiny_model: Path, tmp_path: Path
) -> None:
    job = create_job(client, evaluate=False)
    finish(job.id, tiny_model, tmp_path)
    with transaction() as session:
        session.get_one(Project, project_of(api_key)).name = new_id("renamed")
    [checkpoint] = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert checkpoint.fine_tuned_model_checkpoint == client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model


def test_queries_too_long_to_be_validated_are_named_and_validation_is_off(client: OpenAI) -> None:
    lines = [{"task": "sum", "input": "word " * 200, "output": "1"}]
    options = {"tasks": TASKS, "max_sequence_tokens": 256}
    training, validation = upload(client, example_lines(0, 3)), upload(client, lines)
    job = client.fine_tuning.jobs.create(
        model=BASE_MODEL, training_file=training, validation_file=validation, extra_body={"manyicl": options}
    )
    [warning] = [event for event in client.fine_tuning.jobs.list_events(job.id) if event.level == "warn"]
    assert "validation file, line 1: the example of task 'sum' takes" in warning.message
    with pytest.raises(openai.BadRequestError, match="validation file, line 1") as refused:
        client.fine_tuning.jobs.create(
            model=BASE_MODEL,
            training_file=training,
            validation_file=validation,
            extra_body={"manyicl": options | {"validation": {"every": 5}}},
        )
    assert refused.value.param == "validation_file"
