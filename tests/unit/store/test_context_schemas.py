"""The ``manyicl`` object of a chat completion."""

from typing import Any

import pytest
from pydantic import ValidationError

from manyicl_core.store.contexts.schemas import InlineContext, ManyiclChat

EXAMPLE = {"input": "a box came", "output": "parcel"}


def test_a_task_or_a_context_is_given():
    assert ManyiclChat.model_validate({"task": "sort"}).task == "sort"
    context = ManyiclChat.model_validate({"context": {"examples": [EXAMPLE]}}).context
    assert context is not None
    assert (context.instruction, context.labels, context.examples[0].output) == ("", None, "parcel")


def test_a_context_may_be_the_id_of_a_hosted_one():
    assert ManyiclChat.model_validate({"context": "ctx_a", "max_shots": 3}).context == "ctx_a"


@pytest.mark.parametrize("context", ["ctx_a", {"examples": [EXAMPLE]}])
def test_both_are_refused(context: Any):
    with pytest.raises(ValidationError, match="either task or context"):
        ManyiclChat.model_validate({"task": "sort", "context": context})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"task": ""}, "at least 1"),
        ({"task": "sort", "max_shots": -1}, "greater than or equal to 0"),
        ({"task": "sort", "max_shots": True}, "valid integer"),
        ({"task": "sort", "k": 4}, "not permitted"),
        ({"context": {"examples": [{**EXAMPLE, "label": "x"}]}}, "not permitted"),
        ({"context": {"examples": [{"input": " ", "output": "x"}]}}, "match pattern"),
        ({"context": {"examples": [{"input": "x"}]}}, "Field required"),
        ({"context": {"labels": ["one"]}}, "at least 2"),
        ({"context": {"instruction": "x" * 1_000_001}}, "at most 1000000"),
        ({"context": {"labels": ["one", "two "]}}, "the label 'two ' has white space"),
        ({"context": {"labels": ["one", " "]}}, "match pattern"),
        ({"context": {"labels": ["one", "one"]}}, "a label occurs twice"),
    ],
)
def test_a_wrong_field_is_refused(body: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        ManyiclChat.model_validate(body)


def test_an_example_whose_output_is_no_label_is_named():
    context = {"labels": ["parcel", "letter"], "examples": [EXAMPLE, {"input": "x", "output": "card"}]}
    with pytest.raises(
        ValidationError, match=r"examples\[1\].output, 'card', is not one of the labels 'parcel', 'letter'"
    ):
        ManyiclChat.model_validate({"context": context})
    context["labels"] = ["parcel", "letter", "card"]
    assert ManyiclChat.model_validate({"context": context}).context is not None


def test_an_output_in_another_form_is_its_label_as_listed():
    examples = [{"input": "a", "output": "cafe\u0301 "}, {"input": "b", "output": "tea"}]
    context = ManyiclChat.model_validate({"context": {"labels": ["caf\u00e9", "tea"], "examples": examples}}).context
    assert isinstance(context, InlineContext)
    assert [example.output for example in context.examples] == ["caf\u00e9", "tea"]
