import openai
import pytest
from openai import OpenAI

from tests.services import BASE_MODEL


def test_the_base_model_is_listed_and_found_although_its_id_has_a_slash(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [BASE_MODEL]
    assert client.models.retrieve(BASE_MODEL).id == BASE_MODEL


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("ft:some/base:project:x:12345678")
    assert refused.value.code == "model_not_found"


def test_the_base_model_cannot_be_deleted(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="base model"):
        client.models.delete(BASE_MODEL)
