"""Many inputs at once, each with a label and the probability of all."""

from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.api.test_chat import CONTEXT
from tests.contexts import PASTED, converse, create_context
from tests.services import BASE_MODEL
from tests.tiny_model import MAX_POSITIONS
from worker.context_building import build_context


def classify(client: OpenAI, **body: Any) -> Any:
    return client.post("/classifications", body={"model": BASE_MODEL, **body}, cast_to=object)


def test_every_input_gets_its_label_as_if_it_were_alone(client: OpenAI) -> None:
    inputs = [f"thing {n}" for n in range(70)]
    answer = classify(client, input=inputs, manyicl={"context": CONTEXT})
    assert [entry["index"] for entry in answer["data"]] == list(range(70))
    for entry in answer["data"]:
        assert set(entry["probabilities"]) == {"red", "dark blue"}
        assert sum(entry["probabilities"].values()) == pytest.approx(1)
        assert entry["probability"] == max(entry["probabilities"].values())
        assert 0 < entry["label_mass"] <= 1
    assert answer["usage"]["prompt_tokens"] > 70 * answer["manyicl"]["context_tokens"]
    alone = classify(client, input=inputs[69], manyicl={"context": CONTEXT})
    assert alone["data"][0]["probabilities"] == pytest.approx(answer["data"][69]["probabilities"], abs=1e-3)
    chat = client.chat.completions.create(
        model=BASE_MODEL,
        messages=[{"role": "user", "content": inputs[69]}],
        extra_body={"manyicl": {"context": CONTEXT, "label_probabilities": True}},
    )
    assert chat.choices[0].message.content == answer["data"][69]["label"]


@pytest.mark.parametrize(
    ("body", "param", "remedy"),
    [
        ({"input": "a"}, "manyicl", "name a task"),
        ({"input": "a", "manyicl": {"context": {"examples": CONTEXT["examples"]}}}, "manyicl", "labels"),
        ({"input": [], "manyicl": {"context": CONTEXT}}, "input", "a list of 1 to 2048, .* not a list of 0"),
        ({"input": ["a", " "], "manyicl": {"context": CONTEXT}}, "input.1", "more than white space"),
        ({"input": ["w"] * 2049, "manyicl": {"context": CONTEXT}}, "input", "2048"),
        ({"input": ["w"] * 2000, "manyicl": {"context": {"labels": [f"l{n}" for n in range(200)]}}}, "input", "1310"),
        ({"input": ["w " * 900] * 300, "manyicl": {"context": CONTEXT}}, "input", "send about"),
        ({"input": ["a"], "manyicl": {"context": CONTEXT}, "top_p": 1}, "top_p", "remove"),
    ],
)
def test_what_cannot_be_classified_is_refused_with_the_remedy(
    client: OpenAI, body: dict[str, Any], param: str, remedy: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=remedy) as refused:
        classify(client, **body)
    assert refused.value.param == param


def test_an_input_that_is_too_long_for_its_context_is_named(client: OpenAI) -> None:
    context = create_context(client, **PASTED)["id"]
    build_context(context)
    long = "word " * MAX_POSITIONS
    for ask, param in (
        (lambda: classify(client, model=context, input=["thing 1", long]), "input"),
        (lambda: client.completions.create(model=context, prompt=["thing 1", long]), "prompt"),
    ):
        with pytest.raises(openai.BadRequestError, match="query 1, counted from 0") as refused:
            ask()
        assert (refused.value.param, refused.value.code) == (param, "context_length_exceeded")
    with pytest.raises(openai.BadRequestError, match="the query has") as refused:
        converse(client, context, ("user", long))
    assert refused.value.param == "messages"
