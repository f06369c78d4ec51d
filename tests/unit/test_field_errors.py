"""Every 400 says what is allowed at the place that it names: over every body that the API takes."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from api.app import create_app
from manyicl_core.field_errors import Problem, first_problem
from manyicl_core.request_body import RequestBody

APP = create_app()  # loads every body
WORDS = {"string": "a text", "integer": "whole number", "number": "number", "array": "list", "object": "an object"}
VALUES: list[Any] = [
    True,
    0,
    -5,
    10**9,
    2.5,
    "",
    "no such value",
    [],
    [[]],
    [None],
    ["a"] * 3000,
    [7, "a"],
    {},
    {"a": 1},
]


def bodies(kind: type[RequestBody] = RequestBody) -> Iterator[type[RequestBody]]:
    for each in kind.__subclasses__():
        yield each
        yield from bodies(each)


BODIES = sorted(set(bodies()), key=lambda each: each.__qualname__)


def body_named(name: str) -> type[RequestBody]:
    return next(each for each in BODIES if each.__name__ == name)


def unions() -> Iterator[Any]:
    for body in BODIES:
        for field, schema in body.model_json_schema().get("properties", {}).items():
            branches = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
            if len(branches) > 1:
                yield pytest.param(body, field, branches, id=f"{body.__name__}.{field}")


def problems_of(body: type[RequestBody], field: str, value: Any) -> list[Any]:
    try:
        TypeAdapter(body).validate_python({field: value})
    except ValidationError as error:
        return [each for each in error.errors() if each["loc"][0] == field and each["type"] != "missing"]
    return []


def told(body: type[RequestBody], content: dict[str, Any]) -> Problem:
    with pytest.raises(ValidationError) as refused:
        body.model_validate(content)
    schema = body.model_json_schema()
    return first_problem(refused.value.errors(), content, schema, schema)


@pytest.mark.parametrize(("body", "field", "branches"), list(unions()))
def test_a_field_of_several_kinds_names_all_of_them(
    body: type[RequestBody], field: str, branches: list[dict[str, Any]]
) -> None:
    schema = body.model_json_schema()
    names = [
        name
        for branch in branches
        for name in branch.get("enum") or [branch.get("const") or WORDS[branch.get("type", "object")]]
    ]
    refused = 0
    for value in VALUES:
        if errors := problems_of(body, field, value):
            problem = first_problem(errors, {field: value}, schema, schema)
            if problem.field == field:
                refused += 1
                assert [name for name in names if name not in problem.reason] == [], problem.message
            else:
                assert problem.field.startswith(f"{field}."), "it says what is wrong inside of the value"
    assert refused


@pytest.mark.parametrize("body", BODIES, ids=lambda each: each.__name__)
def test_null_is_taken_wherever_a_field_may_be_left_out(body: type[RequestBody]) -> None:
    names = {field.alias or name for name, field in body.model_fields.items() if not field.is_required()}
    assert [name for name in names if problems_of(body, name, None)] == []


@pytest.mark.parametrize("body", BODIES, ids=lambda each: each.__name__)
def test_what_is_required_is_not_null(body: type[RequestBody]) -> None:
    required = [field.alias or name for name, field in body.model_fields.items() if field.is_required()]
    if required:
        problem = told(body, dict.fromkeys(required))
        assert (problem.field, problem.reason) == (required[0], "this field is required")


def test_there_are_bodies_to_look_at() -> None:
    assert {"CreateJob", "CreateChatCompletion", "CreateBatch", "TaskDefinition"} <= {each.__name__ for each in BODIES}
    for path, methods in APP.openapi()["paths"].items():
        for operation in methods.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                names = {ref["$ref"].rsplit("/", 1)[-1] for ref in references(content["schema"])}
                assert all(name.startswith("Body_") for name in names - {each.__name__ for each in BODIES}), path


def references(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in (schema, *schema.get("anyOf", ())) if "$ref" in each]


CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
JOB = {"model": "m", "training_file": "file-1"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("CreateJob", {**JOB, "hyperparameters": {"n_epochs": 0}}, "give 'auto' or a whole number from 1 to 50, not 0"),
        ("CreateJob", {**JOB, "method": {"type": "dpo"}}, "method.type: give 'supervised', not 'dpo'"),
        (
            "CreateJob",
            {**JOB, "manyicl": {"lora": {"rank": 0}}},
            "lora.rank: give a whole number from 1 to 256",
        ),
        ("CreateJob", {**JOB, "metadata": {"a": 1}}, "metadata.a: give a text, not 1"),
        ("CreateJob", {**JOB, "integrations": [{}]}, "integrations: give an empty list, not a list of 1"),
        ("CreateJob", {**JOB, "suffix": "a/b"}, "suffix: give a text of 1 to 64 characters that matches "),
        (
            "CreateChatCompletion",
            {**CHAT, "stop": ["a"] * 5},
            "give a text or a list of up to 4, each a text",
        ),
        ("CreateChatCompletion", {**CHAT, "stop": ["a", 5]}, "stop.1: give a text, not 5"),
        ("CreateChatCompletion", {**CHAT, "stop": "\ud800"}, "stop: this holds half a character"),
        ("CreateChatCompletion", {**CHAT, "logit_bias": {"x": 1}}, "as a key give a text that matches ^[0-9]"),
        ("CreateChatCompletion", {**CHAT, "logit_bias": {"1": 200}}, "logit_bias.1: give a number from -100 to 100"),
        (
            "CreateChatCompletion",
            {**CHAT, "response_format": {"type": "xml"}},
            "'json_object' or 'json_schema', not 'xml'",
        ),
        ("CreateChatCompletion", {**CHAT, "response_format": {}}, "response_format.type: this field is required"),
        ("CreateChatCompletion", {**CHAT, "tool_choice": "required"}, "tool_choice: there are no tools here"),
        ("CreateChatCompletion", {**CHAT, "tools": [{"type": "function"}]}, "tools: these models call no tools"),
        ("CreateChatCompletion", {**CHAT, "manyicl": {"regex": "a/("}}, "manyicl.regex: this is no regular expression"),
        (
            "CreateChatCompletion",
            {**CHAT, "manyicl": {"context": {"examples": [{"input": 1}]}}},
            ".0.input: give a text",
        ),
        ("CreateChatCompletion", [], "the body is a list of 0; send a JSON object"),
        ("CreateContext", {"model": "m", "selection": "best"}, "'balanced', 'random', 'diverse' or 'auto', not 'best'"),
        ("SetQuotas", {"stored_bytes": -1}, "stored_bytes: give a whole number from 0 to"),
    ],
)
def test_the_message_says_what_is_allowed_there(name: str, content: Any, message: str) -> None:
    assert message in told(body_named(name), content).message


@pytest.mark.parametrize("type_", ["image_url", "input_audio", "file", "refusal"])
def test_a_part_that_is_no_text_is_named(type_: str) -> None:
    content = {
        **CHAT,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": type_, type_: {}}]}],
    }
    problem = told(body_named("CreateChatCompletion"), content)
    assert problem.field == "messages.0.content.1.type"
    assert f"'{type_}'" in problem.reason and "give 'text'" in problem.reason


@pytest.mark.parametrize(
    "nothing",
    [{"tools": []}, {"functions": []}, {"logprobs": False, "top_logprobs": 0}, {"tool_choice": "none"}, {"stop": []}],
)
def test_what_asks_for_nothing_is_taken(nothing: dict[str, Any]) -> None:
    body_named("CreateChatCompletion").model_validate({**CHAT, **nothing})


def test_a_message_without_tool_calls_is_taken() -> None:
    body = next(each for each in BODIES if each.__name__ == "Message")
    assert (
        body.model_validate({"role": "assistant", "content": "a", "tool_calls": []}).model_dump()["tool_calls"] is None
    )
