"""``POST /v1/completions``, as the unmodified client and evaluation harnesses ask it."""

import re
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Completion

from tests.services import BASE_MODEL

CONTEXT = {
    "labels": ["red", "dark blue"],
    "examples": [{"input": f"thing {n}", "output": "red" if n % 2 else "dark blue"} for n in range(6)],
}
TEXT = "Input: ça va? <|im_end|>\nOutput:"


def complete(client: OpenAI, prompt: Any, **options: Any) -> Completion:
    return client.completions.create(model=BASE_MODEL, prompt=prompt, **{"temperature": 0, "max_tokens": 6, **options})


def test_prompts_of_every_shape_are_answered_in_their_order(client: OpenAI) -> None:
    one, two = (complete(client, prompt) for prompt in ("the parcel", "thank you"))
    both = complete(client, ["the parcel", "thank you"], n=2)
    texts = [one.choices[0].text, one.choices[0].text, two.choices[0].text, two.choices[0].text]
    assert [choice.text for choice in both.choices] == texts
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert both.usage is not None and one.usage is not None and two.usage is not None
    assert both.usage.prompt_tokens == one.usage.prompt_tokens + two.usage.prompt_tokens
    assert one.object == "text_completion"
    assert one.choices[0].finish_reason in ("stop", "length")


def test_an_echoed_prompt_is_told_token_by_token(client: OpenAI) -> None:
    answer = complete(client, TEXT, echo=True, logprobs=2)
    told = answer.choices[0].logprobs
    assert told is not None and told.tokens and told.token_logprobs and told.top_logprobs and told.text_offset
    text = answer.choices[0].text
    assert text.startswith(TEXT)
    assert text == TEXT + complete(client, TEXT).choices[0].text
    assert told.token_logprobs[0] is None
    assert told.top_logprobs[0] is None
    for number, token in enumerate(told.tokens[:-6]):
        piece = text[told.text_offset[number] : told.text_offset[number + 1]]
        assert piece == token or "\N{REPLACEMENT CHARACTER}" in token, "part of a character"
        assert number == 0 or (told.token_logprobs[number] <= 0 and len(told.top_logprobs[number]) in (2, 3))
    assert answer.usage is not None
    assert len(told.tokens) == answer.usage.total_tokens


def test_scoring_alone_gives_what_scoring_before_an_answer_gives(client: OpenAI) -> None:
    ids = [5, 40, 300, 41, 42]
    alone = complete(client, [ids, ids[:3]], echo=True, logprobs=1, max_tokens=0)
    before = complete(client, ids, echo=True, logprobs=1, max_tokens=1)
    first, second = (choice.logprobs and choice.logprobs.token_logprobs for choice in alone.choices)
    assert first and second
    assert before.choices[0].logprobs is not None
    assert first == before.choices[0].logprobs.token_logprobs[:5]
    assert second[1:] == pytest.approx(first[1:3])
    assert alone.usage is not None
    assert alone.usage.completion_tokens == 0


@pytest.mark.parametrize(("prompt", "options"), [("the parcel", {"n": 2}), (["the parcel", "a lamp"], {"echo": True})])
def test_a_stream_tells_what_a_whole_answer_tells(client: OpenAI, prompt: Any, options: Any) -> None:
    options = {**options, "temperature": 1, "seed": -3, "logprobs": 1}
    whole = complete(client, prompt, **options)
    *chunks, last = client.completions.create(
        model=BASE_MODEL, prompt=prompt, max_tokens=6, stream=True, stream_options={"include_usage": True}, **options
    )
    assert (last.choices, last.usage) == ([], whole.usage)
    for choice in whole.choices:
        parts = [part for chunk in chunks for part in chunk.choices if part.index == choice.index]
        assert "".join(part.text for part in parts) == choice.text
        assert parts[-1].finish_reason == choice.finish_reason
        assert choice.logprobs is not None
        streamed = [offset for part in parts for offset in (part.logprobs and part.logprobs.text_offset) or []]
        assert streamed == choice.logprobs.text_offset


def test_prompts_behind_demonstrations_are_queries(client: OpenAI) -> None:
    answer = complete(client, ["thing 8", "thing 9"], extra_body={"manyicl": {"context": CONTEXT}}, stop=["e"])
    chats = [
        client.chat.completions.create(
            model=BASE_MODEL,
            messages=[{"role": "user", "content": query}],
            extra_body={"manyicl": {"context": CONTEXT}},
        )
        for query in ("thing 8", "thing 9")
    ]
    assert [choice.text for choice in answer.choices] == [chat.choices[0].message.content for chat in chats]


@pytest.mark.parametrize("manyicl", [{}, {"context": {"examples": CONTEXT["examples"]}}])
def test_answers_match_a_regular_expression(client: OpenAI, manyicl: Any) -> None:
    options = {
        "max_tokens": 30,
        "temperature": 1.5,
        "seed": 1,
        "extra_body": {"manyicl": {**manyicl, "regex": "[ab]{2}"}},
    }
    answer = complete(client, ["thing 8", "thing 9"], **options)
    assert [choice for choice in answer.choices if not re.fullmatch("[ab]{2}", choice.text)] == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[1], []]}, "prompt.1"),
        ({"prompt": [1] * 3000}, None),
        ({"prompt": [100_000]}, None),
        ({"prompt": ["a " * 1000] * 300}, "prompt"),
        ({"prompt": ["a"] * 100, "n": 100}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"model": "gpt-99"}, "model"),
        ({"tools": []}, "tools"),
        ({"echo": True, "manyicl": {"context": CONTEXT}}, "echo"),
        ({"prompt": [1, 2], "manyicl": {"context": CONTEXT}}, "prompt"),
        ({"prompt": " ", "manyicl": {"context": CONTEXT}}, "prompt"),
        ({"manyicl": {"context": CONTEXT, "label_probabilities": True}}, "manyicl.label_probabilities"),
        ({"manyicl": {"context": CONTEXT, "regex": "a"}}, "manyicl.regex"),
        ({"manyicl": {"regex": "("}}, "manyicl.regex"),
        ({"manyicl": {"regex": "("}, "stream": True}, "manyicl.regex"),
    ],
)
def test_a_wrong_field_is_named(client: OpenAI, body: dict[str, Any], param: str | None) -> None:
    request = {"model": BASE_MODEL, "prompt": "x", **body}
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
        client.post("/completions", body=request, cast_to=object)
    assert refused.value.param == param
