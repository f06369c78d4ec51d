from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion

from manyicl_core.ids import new_id
from manyicl_core.store.projects.service import create_key, get_or_create_project
from manyicl_core.store.session import transaction
from tests.contexts import EXAMPLES, create_context
from tests.jobs import create_job
from tests.services import BASE_MODEL
from tests.tuned_model import add_tuned_model
from worker.context_building import build_context


@pytest.fixture
def projects(installation: str) -> Iterator[Callable[[], tuple[str, OpenAI]]]:
    """Makes other projects: the id of each, and a client in it."""
    clients: list[OpenAI] = []

    def make() -> tuple[str, OpenAI]:
        with transaction() as session:
            project = get_or_create_project(session, new_id("p"))
            key = create_key(session, project)
        clients.append(OpenAI(base_url=installation, api_key=key, max_retries=0))
        return project.id, clients[-1]

    yield make
    for client in clients:
        client.close()


def chat(client: OpenAI, model: str) -> ChatCompletion:
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "thing 11"}], temperature=0, max_tokens=8
    )


def test_a_shared_model_answers_in_the_other_project_until_its_permission_is_deleted(
    client: OpenAI, projects: Callable[[], tuple[str, OpenAI]], tiny_model: Path, tmp_path: Path
) -> None:
    model = add_tuned_model(client, tiny_model, tmp_path / "adapter")
    (friend_id, friend), (_, stranger) = projects(), projects()
    permissions = client.fine_tuning.checkpoints.permissions
    [permission] = permissions.create(model, project_ids=[friend_id])

    assert [one.id for one in friend.models.list()] == [BASE_MODEL, model]
    seen = friend.models.retrieve(model)
    assert (seen.model_extra or {})["root"] == BASE_MODEL
    assert not {"job", "weights_sha256"} & {name for name, value in (seen.model_extra or {}).items() if value}
    assert chat(friend, model).choices == chat(client, model).choices != chat(client, BASE_MODEL).choices
    contexts = [create_context(one, model=model, examples=EXAMPLES)["id"] for one in (friend, client)]
    for context_id in contexts:
        build_context(context_id)
    friends, own = (one.models.retrieve(id_) for one, id_ in zip((friend, client), contexts, strict=True))
    assert [(seen.model_extra or {})["parent"] for seen in (friends, own)] == [model, model]
    assert [bool((seen.model_extra or {})["weights_sha256"]) for seen in (friends, own)] == [False, True]
    assert [one.id for one in friend.models.list()] == [BASE_MODEL, model, contexts[0]]
    assert [one.id for one in stranger.models.list()] == [BASE_MODEL]

    permissions.delete(permission.id, fine_tuned_model_checkpoint=model)
    assert [one.id for one in friend.models.list()] == [BASE_MODEL]
    for call in (chat, lambda other, name: other.models.retrieve(name)):
        for other, name in ((friend, model), (stranger, model), (friend, contexts[0])):
            with pytest.raises(openai.NotFoundError):
                call(other, name)
    assert client.models.retrieve(model).id == model


def test_whoever_may_call_a_model_sees_and_does_nothing_else_with_it(
    client: OpenAI, projects: Callable[[], tuple[str, OpenAI]], tiny_model: Path, tmp_path: Path
) -> None:
    model = add_tuned_model(client, tiny_model, tmp_path / "adapter")
    friend_id, friend = projects()
    permissions = client.fine_tuning.checkpoints.permissions
    permissions.create(model, project_ids=[friend_id])
    other = friend.fine_tuning.checkpoints.permissions

    with pytest.raises(openai.NotFoundError, match="no task of this model"):
        friend.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "thing 11"}],
            extra_body={"manyicl": {"task": "colour"}},
        )
    with pytest.raises(openai.BadRequestError, match="shows no tasks of its own"):
        create_context(friend, model=model, task="colour")
    with pytest.raises(openai.BadRequestError, match="shows no tasks of its own"):
        friend.post("/evaluations", body={"model": model}, cast_to=object)
    with pytest.raises(openai.BadRequestError, match="not train it") as refused:
        create_job(friend, model=model)
    assert refused.value.param == "model"
    for forbidden in (
        lambda: friend.models.delete(model),
        lambda: other.create(model, project_ids=[friend_id]),
        lambda: other.list(model),
        lambda: other.delete(permissions.list(model).data[0].id, fine_tuned_model_checkpoint=model),
    ):
        with pytest.raises(openai.NotFoundError):
            forbidden()


def test_permissions_are_listed_in_pages_and_go_with_the_model(
    client: OpenAI, projects: Callable[[], tuple[str, OpenAI]], tiny_model: Path, tmp_path: Path
) -> None:
    model = add_tuned_model(client, tiny_model, tmp_path / "adapter")
    permissions = client.fine_tuning.checkpoints.permissions
    (first, friend), (second, _) = projects(), projects()
    made = permissions.create(model, project_ids=[first]).data + permissions.create(model, project_ids=[second]).data
    assert [one.project_id for one in made] == [first, second]
    assert permissions.create(model, project_ids=[second, first, second]).data == made[::-1], "nothing is given twice"
    assert [one.id for one in permissions.list(model, limit=1)] == [made[1].id, made[0].id]
    assert [one.id for one in permissions.list(model, order="ascending")] == [made[0].id, made[1].id]
    assert [one.id for one in permissions.list(model, project_id=first)] == [made[0].id]
    own = client.fine_tuning.jobs.list(limit=1).data[0].organization_id
    for wrong in (own, "proj_missing"):
        with pytest.raises(openai.BadRequestError) as refused:
            permissions.create(model, project_ids=[wrong])
        assert refused.value.param == "project_ids.0"
    client.models.delete(model)
    with pytest.raises(openai.NotFoundError):
        chat(friend, model)
