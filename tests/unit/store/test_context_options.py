"""The body of ``POST /v1/contexts``, and the salt of a context's prefix."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from manyicl_core.settings import get_settings
from manyicl_core.store.contexts.options import CreateContext
from manyicl_core.store.contexts.salts import cache_salt, tenant

BODY = {"model": "m", "examples": [{"input": "a box came", "output": "parcel"}]}


def test_labels_are_kept_as_given() -> None:
    labels = ["two\nlines", "cafe\u0301"]
    assert CreateContext.model_validate(BODY | {"labels": labels}).labels == labels


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": ""}, "model"),
        ({"examples": []}, "examples"),
        ({"examples": [{"input": " ", "output": "x"}]}, "examples.0.input"),
        ({"labels": ["one"]}, "labels"),
        ({"labels": ["one", " one"]}, "labels"),
        ({"max_shots": 0}, "max_shots"),
        ({"max_tokens": True}, "max_tokens"),
        ({"selection": "best"}, "selection"),
        ({"seed": -1}, "seed"),
        ({"expires_after": {"anchor": "last_active_at", "seconds": 3600}}, "expires_after.anchor"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"shots": 3}, "shots"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        CreateContext.model_validate(BODY | changes)
    location = ".".join(map(str, refused.value.errors()[0]["loc"]))
    assert location.startswith(field)


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MANYICL_SECRET_KEY", "a secret of the tests")
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.mark.usefixtures("secret")
def test_a_salt_tells_projects_and_weights_apart_and_is_one_that_vllm_takes() -> None:
    salts = [cache_salt("p", "w"), cache_salt("q", "w"), cache_salt("p", None), cache_salt("p", "v"), tenant("p")]
    assert len(set(salts)) == len(salts)
    assert salts[0] == cache_salt("p", "w")
    assert all(re.fullmatch("[0-9a-f]{64}", salt) for salt in salts)
