import json
import re
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.services import BASE_MODEL

CONTEXT = {
    "instruction": "Name the colour.",
    "labels": ["red", "dark blue"],
    "examples": [{"input": f"thing {n}", "output": "red" if n % 2 else "dark blue"} for n in range(6)],
}


def ask(client: OpenAI, query: str = "thing 9", **manyicl: Any) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(
        model=BASE_MODEL,
        messages=[{"role": "user", "content": query}],
        extra_body={"manyicl": manyicl or {"context": CONTEXT}},
    )


def cached_tokens(answer: openai.types.chat.ChatCompletion) -> int:
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    return answer.usage.prompt_tokens_details.cached_tokens or 0


def test_a_plain_chat_has_every_field(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=BASE_MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=5, temperature=0
    )
    assert answer.object == "chat.completion"
    assert answer.model == BASE_MODEL
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert 1 <= answer.usage.completion_tokens <= 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_greedy_chats_and_seeded_chats_repeat_themselves(client: OpenAI) -> None:
    def answer(**options: Any) -> str:
        completion = client.chat.completions.create(
            model=BASE_MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=12, **options
        )
        return str(completion.choices[0].message.content)

    assert answer(temperature=0) == answer(temperature=0)
    assert answer(temperature=1.5, seed=3) == answer(temperature=1.5, seed=3)
    assert len({answer(temperature=1.5, seed=seed) for seed in range(5)}) > 1


def test_a_stream_gives_the_same_text_as_a_whole_answer(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Hello"}]
    whole = client.chat.completions.create(model=BASE_MODEL, messages=messages, max_tokens=12, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model=BASE_MODEL,
            messages=messages,
            max_tokens=12,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stop_string_ends_the_answer_before_it(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Hello"}]
    text = client.chat.completions.create(model=BASE_MODEL, messages=messages, max_tokens=20, temperature=0)
    full = str(text.choices[0].message.content)
    stop = full[3:6]
    cut = client.chat.completions.create(model=BASE_MODEL, messages=messages, max_tokens=20, temperature=0, stop=[stop])
    assert cut.choices[0].message.content == full[: full.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_a_context_is_compiled_once_and_its_answers_are_labels(client: OpenAI) -> None:
    context = {**CONTEXT, "instruction": "Name the colour, once."}
    first = ask(client, "thing 10", context=context)
    second = ask(client, "thing 11", context=context)
    assert {first.choices[0].message.content, second.choices[0].message.content} <= {"red", "dark blue"}
    assert first.model_extra is not None
    told = first.model_extra["manyicl"]
    assert told["shots"] == 6
    assert cached_tokens(first) == 0
    assert cached_tokens(second) == told["context_tokens"]


def test_an_answer_is_a_label_at_any_temperature(client: OpenAI) -> None:
    for seed in range(5):
        answer = client.chat.completions.create(
            model=BASE_MODEL,
            messages=[{"role": "user", "content": "thing 3"}],
            temperature=2,
            seed=seed,
            extra_body={"manyicl": {"context": CONTEXT}},
        )
        assert answer.choices[0].message.content in ("red", "dark blue")


def test_a_label_is_never_cut_short(client: OpenAI) -> None:
    for query in ("thing 1", "thing 2", "thing 3"):
        answer = client.chat.completions.create(
            model=BASE_MODEL,
            messages=[{"role": "user", "content": query}],
            max_tokens=1,
            stop=["e", "u"],
            extra_body={"manyicl": {"context": {**CONTEXT, "labels": ["red red red", "dark blue"], "examples": []}}},
        )
        assert answer.choices[0].message.content in ("red red red", "dark blue")
        assert answer.choices[0].finish_reason == "stop"


def test_max_shots_shortens_the_context(client: OpenAI) -> None:
    answer = ask(client, context=CONTEXT, max_shots=2)
    assert answer.model_extra is not None
    assert answer.model_extra["manyicl"]["shots"] == 2


def test_a_streamed_query_gives_the_same_answer(client: OpenAI) -> None:
    whole = ask(client)
    chunks = client.chat.completions.create(
        model=BASE_MODEL,
        messages=[{"role": "user", "content": "thing 9"}],
        stream=True,
        extra_body={"manyicl": {"context": CONTEXT}},
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content


def test_several_choices_come_with_the_probabilities_of_their_tokens(client: OpenAI) -> None:
    options: dict[str, Any] = {
        "model": BASE_MODEL,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 6,
        "n": 3,
        "seed": 5,
        "logprobs": True,
        "top_logprobs": 2,
    }
    whole = client.chat.completions.create(**options)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    texts = [choice.message.content or "" for choice in whole.choices]
    assert len(set(texts)) > 1
    for choice in whole.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        for token in choice.logprobs.content:
            assert token.logprob <= 0
            assert len(token.top_logprobs) == 2
            assert token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob
    streamed, tokens = ["", "", ""], [0, 0, 0]
    for chunk in client.chat.completions.create(**options, stream=True):
        [part] = chunk.choices
        streamed[part.index] += part.delta.content or ""
        tokens[part.index] += len((part.logprobs and part.logprobs.content) or [])
    assert streamed == texts
    assert tokens == [len((choice.logprobs and choice.logprobs.content) or []) for choice in whole.choices]


@pytest.mark.parametrize("manyicl", [None, {"context": {"examples": CONTEXT["examples"]}}])
def test_an_answer_keeps_to_a_json_schema(client: OpenAI, manyicl: Any) -> None:
    colour = {"type": "object", "properties": {"colour": {"enum": ["red", "dark\nblue"]}}, "required": ["colour"]}
    schema = {"name": "colour", "strict": True, "schema": {**colour, "additionalProperties": False}}
    answer = client.chat.completions.create(
        model=BASE_MODEL,
        messages=[{"role": "user", "content": "thing 1"}],
        max_tokens=200,
        response_format={"type": "json_schema", "json_schema": schema},
        extra_body={"manyicl": manyicl},
    )
    assert json.loads(answer.choices[0].message.content or "") in ({"colour": "red"}, {"colour": "dark\nblue"})


@pytest.mark.parametrize("manyicl", [{}, {"context": {"examples": CONTEXT["examples"]}}])
def test_an_answer_matches_a_regular_expression_streamed_or_not(client: OpenAI, manyicl: Any) -> None:
    regex = r"[0-9]{2,3}(\.\\| [a-z])|x{9}"
    options: Any = {
        "model": BASE_MODEL,
        "messages": [{"role": "user", "content": "thing 1"}],
        "temperature": 1.5,
        "seed": 1,
        "n": 4,
        "extra_body": {"manyicl": {**manyicl, "regex": regex}},
    }
    texts = [choice.message.content or "" for choice in client.chat.completions.create(**options).choices]
    assert [text for text in texts if not re.fullmatch(regex, text)] == []
    assert len(set(texts)) > 1
    streamed = ["", "", "", ""]
    for chunk in client.chat.completions.create(**options, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_the_answer_is_the_most_probable_label_and_tells_how_probable_all_are(client: OpenAI) -> None:
    answer = ask(client, context=CONTEXT, label_probabilities=True)
    assert answer.model_extra is not None
    told = answer.model_extra["manyicl"]["label_probabilities"]
    assert sum(told.values()) == pytest.approx(1)
    assert answer.choices[0].message.content == max(told, key=told.get)
    chunks = client.chat.completions.create(
        model=BASE_MODEL,
        messages=[{"role": "user", "content": "thing 9"}],
        stream=True,
        extra_body={"manyicl": {"context": CONTEXT, "label_probabilities": True}},
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == answer.choices[0].message.content


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"n": 129}, "n"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content"),
        ({"temperature": 3}, "temperature"),
        ({"model": "gpt-99"}, "model"),
        ({"manyicl": {}}, "manyicl"),
        ({"manyicl": {"task": "colour"}}, "manyicl.task"),
        ({"manyicl": {"context": {}, "label_probabilities": True}}, "manyicl.label_probabilities"),
        ({"manyicl": {"context": CONTEXT, "label_probabilities": True}, "logprobs": True}, "logprobs"),
        ({"manyicl": {"context": CONTEXT}, "response_format": {"type": "json_object"}}, "response_format"),
        ({"manyicl": {"regex": "a"}, "response_format": {"type": "json_object"}}, "response_format"),
        ({"manyicl": {"context": CONTEXT, "regex": "a"}}, "manyicl.regex"),
        ({"manyicl": {"regex": r"\ba"}}, "manyicl.regex"),
        ({"manyicl": {"regex": "("}, "stream": True}, "manyicl.regex"),
        ({"manyicl": {"regex": "a" * 2001}}, "manyicl.regex"),
        ({"manyicl": {"regex": "a", "max_shots": 1}}, "manyicl"),
        ({"manyicl": {"context": {"labels": ["one"]}}}, "manyicl.context.labels"),
        ({"manyicl": {"context": {"examples": [{"input": "a"}]}}}, "manyicl.context.examples.0.output"),
        ({"manyicl": {"context": {"examples": [{"input": "w " * 4000, "output": "b"}]}}}, "manyicl.max_shots"),
        (
            {"manyicl": {"context": {}}, "messages": [{"role": "system", "content": "x"}]},
            "messages",
        ),
    ],
)
def test_a_wrong_field_is_named(client: OpenAI, body: dict[str, Any], param: str) -> None:
    request = {"model": BASE_MODEL, "messages": [{"role": "user", "content": "x"}], **body}
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
        client.post("/chat/completions", body=request, cast_to=object)
    assert refused.value.param == param


def test_a_prompt_longer_than_the_model_reads_is_refused_with_its_length(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="tokens"):
        client.chat.completions.create(model=BASE_MODEL, messages=[{"role": "user", "content": "word " * 5000}])


def test_harmless_fields_are_accepted(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=BASE_MODEL,
        messages=[{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        max_completion_tokens=2,
        user="me",
        store=False,
        metadata={"a": "b"},
    )
    assert answer.choices[0].message.role == "assistant"
