"""Quotas and usage of the project of a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import openai
import pytest
from openai import OpenAI

from manyicl_core.store.projects.service import authenticate
from manyicl_core.store.quotas.service import QuotaName, set_quota
from manyicl_core.store.session import transaction
from tests.services import BASE_MODEL


def project_of(api_key: str) -> str:
    """The id of the project that a key opens."""
    with transaction() as session:
        return authenticate(session, api_key).project_id


def give_quota(api_key: str, name: QuotaName, limit: int) -> None:
    """What an operator does for the project."""
    project_id = project_of(api_key)
    with transaction() as session:
        set_quota(session, project_id, name, limit)


def quotas(client: OpenAI) -> dict[str, dict[str, Any]]:
    """The project's quotas by name."""
    answer = cast(dict[str, Any], client.get("/quotas", cast_to=object))
    return {quota["name"]: quota for quota in answer["data"]}


def today(client: OpenAI) -> dict[str, Any]:
    """What the project used today."""
    page = cast(dict[str, Any], client.get("/usage?limit=1", cast_to=object))
    [result] = page["data"][0]["results"] or [{}]
    return cast(dict[str, Any], result)


def chat(client: OpenAI, **options: Any) -> Any:
    """A short chat, or its stream."""
    messages = [{"role": "user", "content": "Hello"}]
    return client.chat.completions.create(model=BASE_MODEL, messages=messages, max_tokens=2, **options)  # type: ignore[call-overload]


@contextmanager
def refused(
    error: type[openai.APIStatusError], name: QuotaName
) -> Iterator[pytest.ExceptionInfo[openai.APIStatusError]]:
    """The block is refused by a quota, whose name, limit and remedy the error says."""
    with pytest.raises(error) as caught:
        yield caught
    assert name in caught.value.message
    assert "manyicl quotas set" in caught.value.message
    if error is openai.RateLimitError:
        assert int(caught.value.response.headers["retry-after-ms"]) > 0
