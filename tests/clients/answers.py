"""Models, chat completions and completions."""

import json
from typing import Any

from openai import OpenAI
from pydantic import BaseModel

from tests.clients.methods import Methods, refused

HELLO: Any = [{"role": "user", "content": "Hello"}]
COLOUR = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
    "required": ["colour"],
    "additionalProperties": False,
}


def check_models(client: OpenAI, methods: Methods, base_model: str, tuned_model: str) -> None:
    """The base model and a fine-tuned one; the latter is deleted, so this comes last."""
    with methods("models.list"):
        assert {base_model, tuned_model} <= {model.id for model in client.models.list()}
    with methods("models.retrieve"):
        assert client.models.retrieve(base_model).object == "model"
        assert client.models.retrieve(tuned_model).id == tuned_model
    with methods("models.delete"):
        assert client.models.delete(tuned_model).deleted
        assert refused(lambda: client.models.retrieve(tuned_model)).code == "model_not_found"


def check_chat(client: OpenAI, methods: Methods, model: str) -> None:
    """Every option of a chat completion."""
    create: Any = client.chat.completions.create
    with methods("chat.completions.create"):
        _check_whole_chat(create, model)
        _check_streamed_chat(create, model)
        _check_formats(create, model)
    with methods("chat.completions.parse"):
        _check_parse(client, model)
    with methods("chat.completions.stream"):
        with client.chat.completions.stream(model=model, messages=HELLO, max_tokens=5, temperature=0) as stream:
            events = list(stream)
        assert events[-1].type == "content.done"
    with methods(*(f"chat.completions.{name}" for name in ("retrieve", "update", "list", "delete", "messages.list"))):
        _check_that_nothing_is_stored(client)


def _check_whole_chat(create: Any, model: str) -> None:
    plain = create(model=model, messages=HELLO, max_tokens=5, temperature=0)
    assert (plain.object, plain.model, len(plain.choices)) == ("chat.completion", model, 1)
    assert plain._request_id.startswith("req_")
    assert plain.usage.total_tokens == plain.usage.prompt_tokens + plain.usage.completion_tokens
    assert plain.usage.prompt_tokens_details.cached_tokens >= 0
    text = plain.choices[0].message.content
    again = [*HELLO, plain.choices[0].message, {"role": "user", "content": [{"type": "text", "text": "And?"}]}]
    assert create(model=model, messages=again, max_completion_tokens=2).usage.completion_tokens <= 2
    stopped = create(model=model, messages=HELLO, max_tokens=5, temperature=0, stop=[text[1:3]])
    assert stopped.choices[0].message.content == text[: text.index(text[1:3])]
    seeded = [create(model=model, messages=HELLO, max_tokens=5, temperature=1, seed=4, n=2) for _ in range(2)]
    answers = [[choice.message.content for choice in one.choices] for one in seeded]
    assert answers[0] == answers[1] and len(answers[0]) == 2
    told = create(model=model, messages=HELLO, max_tokens=3, temperature=0, logprobs=True, top_logprobs=2)
    tokens = told.choices[0].logprobs.content
    assert tokens and all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)
    biased = create(model=model, messages=HELLO, max_tokens=3, temperature=0, logit_bias={"40": 100})
    assert len(set(biased.choices[0].message.content)) == 1, "nothing but the token that was asked for"
    harmless = create(model=model, messages=HELLO, max_tokens=1, user="me", store=False, metadata={"a": "b"})
    assert harmless.choices[0].finish_reason in ("stop", "length")


def _check_streamed_chat(create: Any, model: str) -> None:
    options = {"model": model, "messages": HELLO, "max_tokens": 5, "temperature": 0}
    whole = create(**options)
    *chunks, last = create(**options, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert (last.choices, last.usage) == ([], whole.usage)
    assert all(chunk.choices for chunk in create(**options, stream=True)), "no usage where none is asked for"


def _check_formats(create: Any, model: str) -> None:
    options = {"model": model, "messages": HELLO, "max_tokens": 200, "temperature": 0}
    schema = {"type": "json_schema", "json_schema": {"name": "colour", "strict": True, "schema": COLOUR}}
    assert json.loads(create(**options, response_format=schema).choices[0].message.content)["colour"] in ("red", "blue")
    assert create(**{**options, "max_tokens": 2}, response_format={"type": "text"}).choices
    cut = create(**{**options, "max_tokens": 1}, response_format={"type": "json_object"})
    assert cut.choices[0].message.content.lstrip().startswith("{")


class Answer(BaseModel):
    """What ``parse`` makes of an answer."""

    yes: bool


def _check_parse(client: OpenAI, model: str) -> None:
    parse: Any = getattr(client.chat.completions, "parse", None) or client.beta.chat.completions.parse
    answer = parse(model=model, messages=HELLO, max_tokens=200, temperature=0, response_format=Answer)
    assert answer.choices[0].message.parsed.yes in (True, False)


def _check_that_nothing_is_stored(client: OpenAI) -> None:
    """Chats are not kept, whatever ``store`` says: what reads them back finds nothing."""
    stored: Any = client.chat.completions
    for call in (
        lambda: stored.retrieve("chatcmpl-1"),
        lambda: stored.update("chatcmpl-1", metadata={}),
        lambda: stored.delete("chatcmpl-1"),
        lambda: stored.messages.list("chatcmpl-1"),
        stored.list,
    ):
        assert refused(call).status_code in (404, 405)


def check_completions(client: OpenAI, methods: Methods, model: str) -> None:
    """Every option of a completion."""
    create: Any = client.completions.create
    # Its strict types know neither a chunk before the end nor a first token, which has no probability.
    lenient: Any = client.copy(_extra_kwargs={"_strict_response_validation": False}).completions.create
    with methods("completions.create"):
        one = create(model=model, prompt="Once upon", max_tokens=4, temperature=0)
        assert (one.object, one.choices[0].index) == ("text_completion", 0)
        two = create(model=model, prompt=["Once upon", "A time"], max_tokens=4, temperature=0, n=2)
        assert [choice.index for choice in two.choices] == [0, 1, 2, 3]
        assert two.choices[0].text == two.choices[1].text == one.choices[0].text
        chunks = list(lenient(model=model, prompt="Once upon", max_tokens=4, temperature=0, stream=True))
        assert "".join(chunk.choices[0].text for chunk in chunks) == one.choices[0].text
        scored = lenient(model=model, prompt=[[40, 41, 42], [43, 44]], max_tokens=0, echo=True, logprobs=1)
        told = scored.choices[0].logprobs
        assert told.token_logprobs[0] is None and len(told.token_logprobs) == 3
        assert told.text_offset[0] == 0 and len(told.tokens) == 3 and all(told.top_logprobs[1:])
        cut = create(model=model, prompt="Once upon", max_tokens=4, temperature=0, stop=one.choices[0].text[1])
        assert cut.choices[0].finish_reason == "stop"
        assert refused(lambda: create(model=model, prompt="a", suffix="b")).param == "suffix"
