"""Every task of a fine-tuned model is a model of its own."""

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from manyicl_core.store.models.task_ids import task_model_id
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Model
from tests.batches import create_batch, request, result_lines
from tests.contexts import create_context
from tests.finished_jobs import finish
from tests.jobs import create_job, upload
from tests.services import BASE_MODEL
from tests.tuned_model import add_tuned_model
from worker.batches import run_batch

QUERY: Any = [{"role": "user", "content": "thing 11"}]


@pytest.fixture
def tuned(client: OpenAI, tiny_model: Path, tmp_path: Path) -> str:
    return add_tuned_model(client, tiny_model, tmp_path / "adapter")


def ask(client: OpenAI, model: str, **more: Any) -> dict[str, Any]:
    return client.chat.completions.create(model=model, messages=QUERY, temperature=0, **more).model_dump()


def test_each_task_is_listed_and_found_with_what_it_is(client: OpenAI, tuned: str) -> None:
    listed = {model.id: model.model_dump() for model in client.models.list()}
    assert list(listed) == [BASE_MODEL, tuned, f"{tuned}:colour", f"{tuned}:sum", f"{tuned}:parity"]
    colour = client.models.retrieve(f"{tuned}:colour").model_dump()
    assert colour == listed[f"{tuned}:colour"]
    assert (colour["root"], colour["parent"], colour["task"]) == (BASE_MODEL, tuned, "colour")
    assert colour["manyicl"] == {
        "instruction": "Name the colour.",
        "labels": ["red", "blue"],
        "metric": "accuracy",
        "role": "train",
    }
    assert listed[f"{tuned}:parity"]["manyicl"]["role"] == "heldout"
    assert listed[tuned]["manyicl"] is None
    for unknown in (f"{tuned}:colou", f"{tuned}:", f"{tuned}:colour:colour", f"{BASE_MODEL}:colour"):
        for call in (client.models.retrieve, lambda name: ask(client, name)):
            with pytest.raises(openai.NotFoundError) as refused:
                call(unknown)
            assert refused.value.code == "model_not_found"


def test_a_model_whose_row_is_older_than_its_tasks_has_them_too(client: OpenAI, tuned: str) -> None:
    with transaction() as session:
        session.get_one(Model, tuned).tasks = None
    assert [model.id for model in client.models.list()][2:] == [f"{tuned}:colour", f"{tuned}:sum", f"{tuned}:parity"]
    assert ask(client, f"{tuned}:colour")["choices"][0]["message"]["content"] in ("red", "blue")


def test_a_tasks_model_answers_like_its_task_wherever_a_model_answers(client: OpenAI, tuned: str) -> None:
    for task in ("colour", "sum", "parity"):
        own, named = ask(client, f"{tuned}:{task}"), ask(client, tuned, extra_body={"manyicl": {"task": task}})
        assert own["model"] == f"{tuned}:{task}"
        assert own["choices"] == named["choices"]
        assert own["manyicl"]["shots"] == named["manyicl"]["shots"] > 0
    model = f"{tuned}:colour"
    whole = ask(client, model, extra_body={"manyicl": {"max_shots": 2, "label_probabilities": True}})
    assert whole["manyicl"]["shots"] == 2
    assert set(whole["manyicl"]["label_probabilities"]) == {"red", "blue"}
    assert "warnings" not in whole["manyicl"]
    [warning] = ask(client, model, extra_body={"manyicl": {"max_shots": 500}})["manyicl"]["warnings"]
    assert warning["code"] == "max_shots_not_met"
    body = {"model": model, "input": "thing 11", "manyicl": {"max_shots": 500}}
    assert dict(client.post("/classifications", body=body, cast_to=object))["manyicl"]["warnings"] == [warning]  # type: ignore[call-overload]
    chunks = list(client.chat.completions.create(model=model, messages=QUERY, temperature=0, stream=True))
    assert {chunk.model for chunk in chunks} == {model}
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == ask(client, model)["choices"][0]["message"]["content"]
    assert client.completions.create(model=model, prompt="thing 11", temperature=0).choices[0].text == text
    labels = client.post("/classifications", body={"model": model, "input": ["thing 11"]}, cast_to=object)
    assert isinstance(labels, dict)
    assert (labels["model"], labels["data"][0]["label"] in ("red", "blue")) == (model, True)
    with pytest.raises(openai.BadRequestError, match="is a task already"):
        ask(client, model, extra_body={"manyicl": {"task": "sum"}})
    with pytest.raises(openai.BadRequestError, match="is a task already"):
        ask(client, model, extra_body={"manyicl": {"context": {"examples": []}}})
    with pytest.raises(openai.BadRequestError, match="no labels"):
        client.post("/classifications", body={"model": f"{tuned}:sum", "input": ["thing 11"]}, cast_to=object)


def test_where_a_task_makes_no_sense_its_model_is_named(client: OpenAI, tuned: str) -> None:
    task = f"{tuned}:colour"
    permissions = client.fine_tuning.checkpoints.permissions
    for call in (
        lambda: client.models.delete(task),
        lambda: permissions.create(task, project_ids=["proj_other"]),
        lambda: permissions.list(task),
        lambda: client.get(f"/models/{task}/artifacts", cast_to=object),
        lambda: create_job(client, model=task),
        lambda: create_context(client, model=task, task="colour"),
        lambda: client.post("/evaluations", body={"model": task}, cast_to=object),
    ):
        with pytest.raises(openai.BadRequestError, match=f"name the model '{tuned}'"):
            call()
    assert client.models.delete(tuned).deleted
    assert [model.id for model in client.models.list()] == [BASE_MODEL]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(task)


def test_a_plain_call_to_a_tuned_model_is_short_and_tells_the_tasks(client: OpenAI, tuned: str) -> None:
    tasks = {task: f"{tuned}:{task}" for task in ("colour", "sum", "parity")}
    answer = ask(client, tuned, logit_bias={"2": -100})  # the token that ends a chat
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 64
    assert answer["manyicl"]["tasks"] == tasks
    [warning] = answer["manyicl"]["warnings"]
    assert (warning["code"], "task" in warning["message"]) == ("no_task", True)
    for field in ("max_tokens", "max_completion_tokens"):
        longer = ask(client, tuned, logit_bias={"2": -100}, **{field: 70})
        assert longer["usage"]["completion_tokens"] == 70
    chunks = list(client.chat.completions.create(model=tuned, messages=QUERY, max_tokens=2, stream=True))
    assert {tuple((chunk.model_extra or {})["manyicl"]["tasks"]) for chunk in chunks} == {tuple(tasks)}
    completion = client.completions.create(model=tuned, prompt="thing 11", max_tokens=2)
    assert (completion.model_extra or {})["manyicl"]["tasks"] == tasks
    assert ask(client, BASE_MODEL, max_tokens=2)["manyicl"] is None
    assert "tasks" not in ask(client, f"{tuned}:colour")["manyicl"]


def test_ids_of_tasks_never_meet_whatever_the_tasks_are_called() -> None:
    names = ["a b", "a/b", "a-b", "a.b", "Größe", "Grosse", "日本", "中国", "ckpt-step-10", "artifacts", "a:b", "."]
    ids = [task_model_id("ft:m", name) for name in names]
    # Somebody may call a task what another one's id ends with.
    ids += [task_model_id("ft:m", id_.removeprefix("ft:m:")) for id_ in ids if id_.removeprefix("ft:m:") not in names]
    assert len(set(ids)) == len(ids)
    assert ids[2] == "ft:m:a-b"
    assert "ft:m:ckpt-step-10" not in ids
    assert all(character.isascii() and character not in "/ " for id_ in ids for character in id_)


def test_a_batch_may_name_tasks(client: OpenAI, tuned: str) -> None:
    batch = create_batch(client, [request(task, model=f"{tuned}:{task}") for task in ("colour", "parity")])
    run_batch(batch.id)
    results = result_lines(client, client.batches.retrieve(batch.id).output_file_id)
    bodies = {task: result["response"]["body"] for task, result in results.items()}
    assert bodies["parity"]["choices"][0]["message"]["content"] in ("odd", "even")
    assert bodies["colour"]["model"] == f"{tuned}:colour"


def test_tasks_with_any_name_are_found_and_answer(client: OpenAI, tiny_model: Path, tmp_path: Path) -> None:
    names = ["eine Größe/Farbe", "ckpt-step-1", "日本 語"]
    lines = [
        {"task": name, "input": f"{n} {name}", "output": "x" if n % 2 else "y"} for name in names for n in range(6)
    ]
    job = client.fine_tuning.jobs.create(model=BASE_MODEL, training_file=upload(client, lines))
    finish(job.id, tiny_model, tmp_path)
    job = client.fine_tuning.jobs.retrieve(job.id)
    tasks = (job.model_extra or {})["manyicl"]["task_models"]
    assert set(tasks) == set(names)
    assert set(tasks.values()) < {model.id for model in client.models.list()}
    for name, model in tasks.items():
        assert client.models.retrieve(model).model_dump()["task"] == name
        assert ask(client, model, max_tokens=2)["manyicl"]["shots"] > 0
    json.dumps(tasks).encode("ascii")
