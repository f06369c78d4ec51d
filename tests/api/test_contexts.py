import asyncio
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import obstore
import openai
import pytest
from obstore.exceptions import GenericError
from openai import OpenAI
from sqlalchemy import func, update

from manyicl_core.answers.chat_call import chat_call
from manyicl_core.answers.chat_request import CreateChatCompletion, Message
from manyicl_core.answers.classifications import CreateClassification, classification_call
from manyicl_core.embedded import free_port
from manyicl_core.engines.client import EngineClient
from manyicl_core.ids import new_id
from manyicl_core.objects import ArtifactStore, open_store
from manyicl_core.settings import get_settings
from manyicl_core.store.contexts.hosting import expired_contexts, remove_contexts
from manyicl_core.store.projects.service import create_key, get_or_create_project
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Context
from tests.contexts import EXAMPLES, PASTED, ask, converse, create_context, delete_context, get_context, told
from tests.fake_engine import FakeEngine, completion, running
from tests.jobs import example_lines, upload
from tests.services import BASE_MODEL, on_both_stores
from tests.tuned_model import add_tuned_model
from worker import context_building
from worker.context_building import build_context

MANY = {"examples": [{**example, "input": f"{example['input']} {row}"} for row in range(3) for example in EXAMPLES]}


def artifacts() -> ArtifactStore:
    return open_store(str(get_settings().storage_url))


def kept(context_id: str) -> list[str]:
    """The names of the objects that are kept of a context."""
    return artifacts().names(f"contexts/{context_id}")


def removed(context_id: str, engine_urls: str) -> bool:
    """Whether an expired context is gone after a look of a worker with these engines."""

    async def look() -> None:
        engines = EngineClient(engine_urls)
        await remove_contexts(artifacts(), expired_contexts(), engines.forget)
        await engines.close()

    asyncio.run(look())
    with transaction() as session:
        return session.get(Context, context_id) is None


def classified(context_id: str, **body: Any) -> list[dict[str, Any]]:
    """What the engine is asked to classify two inputs for the context's project."""
    with transaction() as session:
        project_id = session.get_one(Context, context_id).project_id
    request = CreateClassification(input=["thing 1", "thing 2"], **body)
    return classification_call(project_id, artifacts(), request).bodies


def behind(body: dict[str, Any]) -> list[int]:
    """The context of a completion that the engine was asked for."""
    tokens: list[int] = body["prompt"][: body["prefix_tokens"]]
    return tokens


def tokens_forgotten(engine: FakeEngine) -> list[list[int]]:
    return [body["tokens"] for body in engine.bodies("/v1/prefixes/forget")]


def prompt(context_id: str, *messages: tuple[str, str], **body: Any) -> list[int]:
    """The token ids that the engine is asked to continue for the context's project."""
    with transaction() as session:
        project_id = session.get_one(Context, context_id).project_id
    said = [Message.model_validate({"role": role, "content": content}) for role, content in messages]
    request = CreateChatCompletion(messages=said, **body)
    return cast(list[int], chat_call(project_id, artifacts(), request).body["prompt"])


def as_inline(context: dict[str, Any]) -> dict[str, Any]:
    """The same demonstrations in a request of their own, in the chosen order."""
    examples = [EXAMPLES[position] for position in context["demonstrations"]]
    return {"instruction": PASTED["instruction"], "labels": PASTED["labels"], "examples": examples}


def test_fewer_demonstrations_than_were_asked_for_are_a_warning(client: OpenAI) -> None:
    context_id = create_context(client, **PASTED, max_shots=16)["id"]
    assert get_context(client, context_id)["warnings"] == [], "nothing is chosen yet"
    build_context(context_id)
    [warning] = get_context(client, context_id)["warnings"]
    assert warning["code"] == "max_shots_not_met"
    assert "16 demonstrations were asked for and 10 are shown" in warning["message"]
    assert told(ask(client, context_id))["warnings"] == [warning]
    assert "12 demonstrations" in told(ask(client, context_id, max_shots=12))["warnings"][0]["message"]
    assert "warnings" not in told(ask(client, context_id, max_shots=4))


@on_both_stores
def test_pasted_examples_become_a_model_that_goes_when_it_is_deleted(client: OpenAI, installation: str) -> None:
    created = create_context(client, **PASTED, name="colours", metadata={"team": "a"})
    context_id = created["id"]
    assert context_id.startswith("ctx_")
    assert (created["object"], created["status"], created["shots"]) == ("context", "queued", None)
    assert (created["examples"], created["selection"], created["expires_at"]) == (10, "balanced", None)
    assert get_context(client, context_id) == created

    with pytest.raises(openai.InternalServerError) as early:
        ask(client, context_id)
    assert (early.value.status_code, early.value.code) == (503, "context_not_ready")
    assert 0 < int(early.value.response.headers["retry-after-ms"]) <= 1000
    assert [model.id for model in client.models.list()] == [BASE_MODEL], "it does not answer yet"

    build_context(context_id)
    context = get_context(client, context_id)
    assert context["status"] == "succeeded", context["error"]
    assert (context["shots"], sorted(context["demonstrations"])) == (10, list(range(10)))
    assert context["bytes"] == context["tokens"] * 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, size, float32
    assert (context["selected"]["selection"], context["metadata"]) == ("balanced", {"team": "a"})
    assert kept(context_id) == ["1.json"]
    assert [model.id for model in client.models.list()] == [BASE_MODEL, context_id]
    assert client.models.retrieve(context_id).model_extra["parent"] == BASE_MODEL  # type: ignore[index]

    by_id = ask(client, context_id)
    assert by_id.model == context_id
    assert by_id.choices[0].message.content in ("red", "dark blue")
    compiled = {"context": context_id, "shots": 10, "context_tokens": context["tokens"]}
    assert told(by_id) == compiled | {"cached_tokens": context["tokens"]}, "compiled before the first call"
    by_name = ask(client, BASE_MODEL, context=context_id)
    assert told(by_name) == told(by_id)
    assert by_name.choices[0].message.content == by_id.choices[0].message.content
    fewer = told(ask(client, context_id, max_shots=4))
    assert fewer["shots"] == 4
    assert 0 < fewer["context_tokens"] < context["tokens"]
    # The same demonstrations inline: the same prompt, so the same answer.
    inline = as_inline(context)
    assert told(ask(client, BASE_MODEL, context=inline)) == told(by_id) | {"context": None}
    assert classified(context_id, model=context_id) == classified(
        context_id, model=BASE_MODEL, manyicl={"context": inline}
    )

    for model, manyicl, param in (
        ("other", {"context": context_id}, "model"),
        (context_id, {"context": "ctx_other"}, "manyicl"),
        (context_id, {"task": "colour"}, "manyicl"),
        ("ctx_other", {}, "model"),
        (BASE_MODEL, {"context": "ctx_other"}, "manyicl.context"),
    ):
        with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
            ask(client, model, **manyicl)
        assert refused.value.param == param

    with transaction() as session:
        key = create_key(session, get_or_create_project(session, new_id("p")))
    with OpenAI(base_url=installation, api_key=key, max_retries=0) as stranger:
        for call in (
            lambda: get_context(stranger, context_id),
            lambda: delete_context(stranger, context_id),
            lambda: stranger.models.retrieve(context_id),
            lambda: stranger.models.delete(context_id),
            lambda: ask(stranger, context_id),
            lambda: ask(stranger, BASE_MODEL, context=context_id),
        ):
            with pytest.raises(openai.NotFoundError):
                call()
        assert create_context(stranger, **PASTED)["id"] != context_id

    assert delete_context(client, context_id) == {"id": context_id, "object": "context", "deleted": True}
    for call in (lambda: get_context(client, context_id), lambda: ask(client, context_id)):
        with pytest.raises(openai.NotFoundError):
            call()
    assert kept(context_id) == []
    assert told(ask(client, BASE_MODEL, context=inline))["cached_tokens"] == 0, "the engine has forgotten it"
    with transaction() as session:
        assert session.get(Context, context_id) is None


def test_an_earlier_exchange_stands_where_one_more_demonstration_would(client: OpenAI) -> None:
    context_id = create_context(client, **PASTED)["id"]
    build_context(context_id)
    inline = as_inline(get_context(client, context_id))
    longer = {**inline, "examples": [*inline["examples"], {"input": "thing 20", "output": "red"}]}
    talk = ("user", "thing 20"), ("assistant", "red"), ("user", "thing 11")
    as_shot = prompt(context_id, talk[-1], model=BASE_MODEL, manyicl={"context": longer})
    assert prompt(context_id, *talk, model=context_id) == as_shot
    assert prompt(context_id, *talk, model=BASE_MODEL, manyicl={"context": inline}) == as_shot

    answer = converse(client, context_id, ("system", "Name the colour."), *talk)
    assert told(answer)["shots"] == len(inline["examples"])
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(as_shot)
    with pytest.raises(openai.BadRequestError, match="leave it out") as refused:
        converse(client, context_id, ("system", "Be nice."), *talk)
    assert refused.value.param == "messages.0.content"


def test_a_build_ends_with_its_context_though_the_engine_does_not_answer(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    context_id = create_context(client, **PASTED | MANY, selection="auto")["id"]
    build = threading.Thread(target=build_context, args=[context_id], daemon=True)
    engine = FakeEngine(hold=True)
    with running(engine) as url:
        monkeypatch.setattr(context_building, "open_engines", lambda *_: EngineClient(url))
        build.start()
        assert engine.holding.wait(20)
        engine.hold = False  # only what it is asked from here on is answered
        delete_context(client, context_id)
        build.join(20)
        assert not build.is_alive()
    assert tokens_forgotten(engine) == [behind(engine.bodies()[0])], "what it tried with is not kept"


def test_an_outage_of_the_artifact_store_costs_an_attempt(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    context_id = create_context(client, **PASTED)["id"]
    outage = [GenericError("error sending request")]
    get = obstore.get

    def get_later(*arguments: Any, **options: Any) -> Any:
        if outage:
            raise outage.pop()
        return get(*arguments, **options)

    monkeypatch.setattr(obstore, "get", get_later)
    build_context(context_id)
    with transaction() as session:
        assert session.get_one(Context, context_id).infrastructure_failures == 1
    # With a new fence, so that nothing lands on what the first attempt may have stored.
    build_context(context_id)
    assert get_context(client, context_id)["status"] == "succeeded"


def test_what_automatic_selection_tried_is_forgotten_before_the_chosen_one_is_compiled(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    context_id = create_context(client, **PASTED | MANY, selection="auto")["id"]
    engine = FakeEngine(answers=[completion(" red\n")])
    with running(engine) as url:
        away = f"http://127.0.0.1:{free_port()}"
        monkeypatch.setattr(context_building, "open_engines", lambda *_: EngineClient(f"{url},{away}"))
        build_context(context_id)
    context = get_context(client, context_id)
    assert context["status"] == "succeeded", context["error"]
    *tried, compiled = map(behind, engine.bodies())
    forgotten = tokens_forgotten(engine)
    assert sorted(forgotten) == sorted({tuple(tokens): tokens for tokens in tried}.values())
    assert len(forgotten) == len(context["selected"]["tried"]) >= 3
    assert len(compiled) == context["tokens"]
    assert engine.asked[-1] == ("/v1/completions", engine.bodies()[-1]), "nothing of the chosen one is forgotten"
    assert len({(body["model"], body["cache_salt"]) for _, body in engine.asked}) == 1


def test_a_files_task_is_chosen_automatically_and_expires(client: OpenAI) -> None:
    lines = example_lines(0, 40)
    body: dict[str, Any] = {"model": BASE_MODEL, "file": upload(client, lines), "labels": ["red", "blue"]}
    for task, said in (
        ({}, "colour, sum, parity"),
        ({"task": "color"}, "no task 'color'"),
        ({"task": "sum"}, "line 2"),
    ):
        with pytest.raises(openai.BadRequestError, match=said):
            create_context(client, **body, **task)
    expiry = {"anchor": "created_at", "seconds": 3600}
    created = create_context(
        client, **body, task="colour", selection="auto", max_tokens=400, max_shots=8, expires_after=expiry
    )
    assert created["expires_at"] == created["created_at"] + 3600
    assert (created["task"], created["examples"]) == ("colour", 40)

    build_context(created["id"])
    context = get_context(client, created["id"])
    assert context["status"] == "succeeded", context["error"]
    assert all(lines[line - 1]["task"] == "colour" for line in context["demonstrations"])
    selected = context["selected"]
    assert (selected["validation_examples"], selected["metric"]) == (10, "accuracy")
    assert {tried["selection"] for tried in selected["tried"][:3]} == {"balanced", "random", "diverse"}
    assert context["tokens"] <= 400
    assert 1 <= context["shots"] <= 8

    with transaction() as session:
        session.execute(
            update(Context).where(Context.id == created["id"]).values(expires_at=func.now() - timedelta(seconds=1))
        )
    with pytest.raises(openai.NotFoundError):
        ask(client, created["id"])
    assert client.get("/contexts", cast_to=dict[str, Any])["data"] == []
    with running(FakeEngine()) as url:
        assert not removed(created["id"], f"{url},http://127.0.0.1:{free_port()}"), "an engine that is away has it yet"
        assert kept(created["id"])
        assert removed(created["id"], url)
    assert kept(created["id"]) == []


def test_a_task_of_a_fine_tuned_model_is_served_by_its_weights(
    client: OpenAI, tiny_model: Path, tmp_path: Path
) -> None:
    model_id = add_tuned_model(client, tiny_model, tmp_path / "adapter")
    created = create_context(client, model=model_id, task="colour")
    assert (created["max_tokens"], created["instruction"], created["labels"]) == (
        128,
        "Name the colour.",
        ["red", "blue"],
    )
    build_context(created["id"])
    by_task, by_context = ask(client, model_id, task="colour"), ask(client, created["id"])
    instructed = converse(client, model_id, ("system", "Name the colour."), ("user", "thing 11"), task="colour")
    assert (told(instructed), instructed.usage) == (told(by_task), by_task.usage)
    assert told(by_context) == told(by_task) | {"context": created["id"]}
    assert told(by_context)["cached_tokens"] == told(by_context)["context_tokens"] > 0
    assert by_context.choices[0].message.content == by_task.choices[0].message.content

    client.models.delete(model_id)
    with pytest.raises(openai.NotFoundError, match=model_id):
        ask(client, created["id"])


def test_a_context_into_which_nothing_fits_fails_and_says_so(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="instruction: it takes 11 tokens") as refused:
        create_context(client, **PASTED, max_tokens=11)
    assert refused.value.code == "context_length_exceeded"
    context_id = create_context(client, **PASTED, max_tokens=12)["id"]
    build_context(context_id)
    failed = get_context(client, context_id)
    assert (failed["status"], failed["error"]["code"], failed["shots"]) == ("failed", "invalid_data", None)
    with pytest.raises(openai.ConflictError, match="raise max_tokens"):
        ask(client, context_id)


def test_contexts_are_listed_newest_first_in_pages(client: OpenAI) -> None:
    made = [create_context(client, **PASTED, seed=seed)["id"] for seed in range(3)]
    first: Any = client.get("/contexts?limit=2", cast_to=object)
    assert [row["id"] for row in first["data"]] == made[:0:-1]
    second: Any = client.get(f"/contexts?limit=2&after={first['last_id']}", cast_to=object)
    assert ([row["id"] for row in second["data"]], second["has_more"]) == (made[:1], False)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"examples": None}, "examples"),
        ({"file": "file-x"}, "file"),
        ({"task": "colour"}, "task"),
        ({"examples": None, "task": "colour"}, "task"),
        ({"examples": None, "file": "file-x"}, "file"),
        ({"model": "gpt-99"}, "model"),
        ({"max_tokens": 2000}, "max_tokens"),
        ({"labels": ["red", "green"]}, "examples.0.output"),
        ({"labels": ["red", "red"]}, "labels"),
        ({"labels": ["red", "dark blue", "red " * 300 + "red"]}, "labels.2"),
        ({"expires_after": {"anchor": "created_at"}}, "expires_after.seconds"),
    ],
)
def test_a_wrong_field_is_named(client: OpenAI, changes: dict[str, Any], param: str) -> None:
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
        create_context(client, **PASTED | changes)
    assert refused.value.param == param
