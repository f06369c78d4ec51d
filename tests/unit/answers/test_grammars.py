"""Answers that match a regular expression: what is asked of the engine, and what its refusal says."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from manyicl_core.answers.chat_request import CreateChatCompletion
from manyicl_core.answers.completion_request import CreateCompletion
from manyicl_core.answers.grammars import naming_the_field
from manyicl_core.answers.prompts import Target, answer_stops, hosted_fields
from manyicl_core.base_models.catalog import known_base_models
from manyicl_core.errors import InvalidRequest
from manyicl_core.store.contexts.schemas import ManyiclChat
from manyicl_core.store.contexts.service import HostedPrompt
from manyicl_core.store.models.service import ServedModel

REGEX = {"manyicl": {"regex": "a|b"}}
JSON = {"response_format": {"type": "json_object"}}


def chat(**fields: Any) -> CreateChatCompletion:
    return CreateChatCompletion.model_validate({"model": "m", "messages": [{"role": "user", "content": "x"}], **fields})


def test_a_regular_expression_is_the_grammar_of_a_free_text():
    assert chat(**REGEX).structured_outputs() == {"regex": "a|b"}
    assert CreateCompletion(model="m", prompt="x", **REGEX).structured_outputs() == {"regex": "a|b"}
    assert chat(**REGEX, response_format={"type": "text"}).structured_outputs() == {"regex": "a|b"}
    assert chat(**JSON, manyicl={"task": "sort"}).structured_outputs() == {"json_object": True}


def test_behind_demonstrations_the_whole_expression_stands_where_answers_stand():
    prompt = HostedPrompt(prefix=(1, 2), query=(3,), shots=1, stop_token=9, labels=None)
    asked = hosted_fields(prompt, chat(stop="x", manyicl={"task": "sort", "regex": "a|b"}), 5)
    assert asked["structured_outputs"] == {"regex": " (?:a|b)\n"}
    assert (asked["stop"], asked["stop_token_ids"]) == (["x", "\r\n", "\n"], [9])


def test_behind_demonstrations_stop_strings_stand_as_the_model_writes_them():
    prompt = HostedPrompt(prefix=(1, 2), query=(3,), shots=1, stop_token=9, labels=None)
    labelled = replace(prompt, labels=("a", "b"))
    asked = chat(stop=["a\nb", ""], manyicl={"task": "sort"})
    told = (hosted_fields(prompt, asked, 5)["stop"], answer_stops(prompt, asked))
    assert told == (["a\\nb", "\r\n", "\n"], ("a\nb",))
    assert (hosted_fields(labelled, asked, 5)["stop"], answer_stops(labelled, asked)) == ([], ())
    in_json = chat(stop="a\nb", manyicl={"task": "sort"}, **JSON)
    assert hosted_fields(prompt, in_json, 5)["stop"] == ["a\nb"]


def test_two_grammars_are_refused():
    with pytest.raises(ValidationError, match=r"manyicl\.regex") as refused:
        chat(**REGEX, **JSON)
    assert refused.value.errors()[0]["loc"] == ("response_format",)


@pytest.mark.parametrize("regex", ["", "a" * 2001, "\ud800", 5])
def test_a_wrong_expression_is_refused(regex: Any):
    with pytest.raises(ValidationError):
        ManyiclChat.model_validate({"regex": regex})


@pytest.mark.parametrize(
    ("manyicl", "hosted"), [({"regex": "a"}, False), ({"regex": "a", "task": "sort"}, True), ({}, True), (None, False)]
)
def test_an_expression_alone_needs_no_demonstrations(manyicl: dict[str, Any] | None, hosted: bool):
    model = ServedModel(known_base_models()[0], None, None, None, trained_tokens=0)
    asked = None if manyicl is None else ManyiclChat.model_validate(manyicl)
    assert Target("project", model, asked, None, tasks={}).hosted == hosted


@pytest.mark.parametrize(
    ("outputs", "field"), [({"regex": "("}, "manyicl.regex"), ({"json": {"type": "x"}}, "response_format")]
)
def test_a_refused_grammar_is_named_by_its_field(outputs: dict[str, Any], field: str):
    with (
        pytest.raises(InvalidRequest, match=f"{field}: why") as refused,
        naming_the_field({"structured_outputs": outputs}),
    ):
        raise InvalidRequest("structured_outputs: why", None, "invalid_grammar")
    assert (refused.value.param, refused.value.code) == (field, "invalid_grammar")
