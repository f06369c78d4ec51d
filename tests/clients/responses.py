"""Responses: what a chat completion does, by the names and events of OpenAI's newer API."""

import json
from typing import Any

from openai import BadRequestError, OpenAI

from tests.clients.answers import COLOUR, Answer
from tests.clients.methods import Methods, methods_of, refused

OPENING = ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
CLOSING = ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
UNSUPPORTED: dict[str, Any] = {
    "previous_response_id": "resp_1",
    "conversation": "conv_1",
    "background": True,
    "prompt": {"id": "pmpt_1"},
    "tools": [{"type": "function", "name": "f", "parameters": {}}],
    "tool_choice": "required",
    "reasoning": {"effort": "high"},
    "truncation": "auto",
    "include": ["file_search_call.results"],
}


def check_responses(client: OpenAI, methods: Methods, model: str) -> None:
    """Whole, streamed, parsed; and nothing is kept."""
    create: Any = client.responses.create
    options = {"model": model, "input": "Hello", "max_output_tokens": 5, "temperature": 0}
    with methods("responses.create"):
        _check_whole(client, create, options)
        _check_streamed(create, options)
        for field, value in UNSUPPORTED.items():
            assert str(refused(lambda: create(**options, extra_body={field: value})).param).startswith(field)  # noqa: B023
        part = {"type": "input_image", "image_url": "data:"}
        picture = refused(lambda: create(model=model, input=[{"role": "user", "content": [part]}]))
        assert isinstance(picture, BadRequestError) and "input_image" in picture.message
    with methods("responses.parse"):
        parsed = client.responses.parse(model=model, input="Hello", temperature=0, text_format=Answer)
        assert parsed.output_parsed is not None and parsed.output_parsed.yes in (True, False)
    with methods("responses.stream"):
        with client.responses.stream(**options) as stream:
            events: list[Any] = list(stream)
        assert events[-1].type in ("response.completed", "response.incomplete")
        assert events[-1].response.output_text == create(**options).output_text
    kept: Any = client.responses
    calls = {
        "retrieve": lambda: kept.retrieve("resp_1"),
        "cancel": lambda: kept.cancel("resp_1"),
        "delete": lambda: kept.delete("resp_1"),
        "compact": lambda: kept.compact(model=model),
        "input_items.list": lambda: kept.input_items.list("resp_1"),
        "input_tokens.count": lambda: kept.input_tokens.count(model=model, input="Hello"),
    }
    names = methods_of(client)
    for name, call in calls.items():
        if f"responses.{name}" in names:
            with methods(f"responses.{name}"):
                assert "nothing of a response is kept" in refused(call).message


def _check_whole(client: OpenAI, create: Any, options: dict[str, Any]) -> None:
    response = create(**options, instructions="Be short.", metadata={"a": "b"}, store=True)
    assert (response.object, response.model, response.store) == ("response", options["model"], False)
    assert response.status in ("completed", "incomplete") and response.metadata == {"a": "b"}
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    messages: Any = [{"role": "developer", "content": "Be short."}, {"role": "user", "content": "Hello"}]
    chat = client.chat.completions.create(model=options["model"], messages=messages, max_tokens=5, temperature=0)
    assert response.output_text == chat.choices[0].message.content
    assert chat.usage is not None and response.usage.input_tokens == chat.usage.prompt_tokens
    asked = {"role": "user", "content": [{"type": "input_text", "text": "And?"}]}
    again = create(**{**options, "input": [{"role": "user", "content": "Hello"}, *response.output, asked]})
    assert again.usage.input_tokens > response.usage.input_tokens
    schema = {"type": "json_schema", "name": "colour", "schema": COLOUR, "strict": True}
    coloured = create(**{**options, "max_output_tokens": 200}, text={"format": schema})
    assert json.loads(coloured.output_text)["colour"] in ("red", "blue")
    include = ["message.output_text.logprobs"]
    [token, *_] = create(**options, include=include, top_logprobs=2).output[0].content[0].logprobs
    assert token.logprob <= 0 and len(token.top_logprobs) == 2


def _check_streamed(create: Any, options: dict[str, Any]) -> None:
    whole = create(**options)
    events = list(create(**options, stream=True))
    types = [event.type for event in events]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert types == [*OPENING, *["response.output_text.delta"] * len(deltas), *CLOSING, f"response.{whole.status}"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(deltas) == whole.output_text == events[-1].response.output_text
    assert events[-1].response.usage == whole.usage
