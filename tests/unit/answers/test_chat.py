"""The engine's answers in OpenAI's shape, whole and streamed."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from manyicl_core.answers.chat_answer import chat_answer
from manyicl_core.answers.chat_call import EngineCall
from manyicl_core.answers.chat_request import CreateChatCompletion
from manyicl_core.answers.chat_stream import stream_chat
from manyicl_core.answers.objects import ChatCompletion
from manyicl_core.answers.prompts import LABEL_SCORES
from manyicl_core.engines.client import EngineClient
from manyicl_core.store.contexts.service import HostedPrompt

USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, "prompt_tokens_details": {"cached_tokens": 5}}
LOGPROBS = {"tokens": [" r"], "token_logprobs": [-0.5], "top_logprobs": [{" r": -0.5}]}
SCORES = {"scores": [[-3.0, -1.0]], "usage": USAGE}


class ScriptedEngine(EngineClient):
    """Gives an answer, or chunks, that a test has written."""

    def __init__(self, answer: dict[str, Any] | None = None, chunks: list[dict[str, Any]] | None = None) -> None:
        super().__init__("http://nowhere")
        self._answer = answer
        self._chunks = chunks or []

    async def complete(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert self._answer is not None
        return self._answer

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        for chunk in self._chunks:
            yield chunk


def hosted(path: str = "/v1/completions", **body: Any) -> EngineCall:
    labels = ("red", "dark blue") if path == LABEL_SCORES else None
    prompt = HostedPrompt(prefix=(1, 2), query=(3,), shots=1, stop_token=9, labels=labels)
    return EngineCall(path, body, prompt)


def request(**fields: Any) -> CreateChatCompletion:
    return CreateChatCompletion(model="m", messages=[{"role": "user", "content": "x"}], **fields)


def streamed(engine: EngineClient, call: EngineCall, body: CreateChatCompletion) -> list[dict[str, Any]]:
    async def chunks() -> list[dict[str, Any]]:
        return [chunk async for chunk in stream_chat(engine, call, body)]

    return asyncio.run(chunks())


def choice(index: int, text: str, finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    choices = [{"index": index, "text": text, "finish_reason": finish, "logprobs": logprobs}]
    return {"choices": choices, "usage": {**USAGE, "completion_tokens": 1}}


def test_a_hosted_answer_has_every_choice_and_tells_its_context():
    answer = {"choices": [*choice(0, " red", "stop", LOGPROBS)["choices"], *choice(1, " a\\nb", "length")["choices"]]}
    told = chat_answer(hosted(), request(n=2), {**answer, "usage": USAGE})
    assert [part["message"]["content"] for part in told["choices"]] == ["red", "a\nb"]
    assert [part["finish_reason"] for part in told["choices"]] == ["stop", "length"]
    assert told["choices"][0]["logprobs"]["content"][0]["token"] == " r"
    assert told["usage"] == USAGE
    assert told["manyicl"] == {"context": None, "shots": 1, "context_tokens": 2, "cached_tokens": 5}


@pytest.mark.parametrize("details", [None, {"cached_tokens": None}])
def test_what_the_engine_does_not_tell_of_its_cache_is_left_out(details: dict[str, Any] | None):
    answer = {**choice(0, " red", "stop", LOGPROBS), "usage": {**USAGE, "prompt_tokens_details": details}}
    told = TypeAdapter(ChatCompletion).validate_python(chat_answer(hosted(), request(), answer))
    assert told["manyicl"] == {"context": None, "shots": 1, "context_tokens": 2}


def test_json_keeps_its_own_escapes():
    call = hosted(structured_outputs={"json_object": True})
    [told] = chat_answer(call, request(), {**choice(0, ' {"a": "x\\ny"}', "stop"), "usage": USAGE})["choices"]
    assert told["message"]["content"] == '{"a": "x\\ny"}'


def test_with_label_probabilities_the_answer_is_the_most_probable_label():
    told = chat_answer(hosted(LABEL_SCORES), request(n=2), SCORES)
    assert [part["message"]["content"] for part in told["choices"]] == ["dark blue", "dark blue"]
    probabilities = told["manyicl"]["label_probabilities"]
    assert sum(probabilities.values()) == pytest.approx(1)
    assert list(probabilities) == ["red", "dark blue"]
    assert probabilities["dark blue"] == pytest.approx(0.8808, abs=1e-4)


def test_at_a_temperature_answers_are_drawn_and_a_seed_repeats_them():
    def contents(seed: int) -> list[str]:
        told = chat_answer(hosted(LABEL_SCORES), request(n=20, temperature=2.0, seed=seed), SCORES)
        return [part["message"]["content"] for part in told["choices"]]

    assert set(contents(1)) == {"red", "dark blue"}
    assert contents(1) == contents(1)
    assert contents(1) != contents(2)


def test_choices_that_come_mixed_are_streamed_each_with_its_own_text():
    chunks = [choice(0, " a\\"), choice(1, " b"), choice(0, "nc", None, LOGPROBS), choice(1, "", "stop")]
    chunks += [choice(0, "", "length"), {"choices": [], "usage": USAGE}]
    body = request(n=2, stream=True, stream_options={"include_usage": True})
    told = streamed(ScriptedEngine(chunks=chunks), hosted(), body)
    texts = ["", ""]
    for part in told[:-1]:
        [of_choice] = part["choices"]
        texts[of_choice["index"]] += of_choice["delta"].get("content", "")
    assert texts == ["a\nc", "b"]
    assert [part["choices"][0]["delta"].get("role") for part in told[:2]] == ["assistant", None]
    assert sum(part["choices"][0]["delta"].get("role") == "assistant" for part in told[:-1]) == 2
    assert {part["choices"][0]["finish_reason"] for part in told[:-1]} == {None, "stop", "length"}
    assert sum(part["choices"][0]["logprobs"] is not None for part in told[:-1]) == 1
    assert all(part["usage"] is None for part in told[:-1]), "what it is so far is not for the client"
    assert (told[-1]["choices"], told[-1]["usage"]) == ([], USAGE)
    assert told[-1]["manyicl"]["cached_tokens"] == 5
    assert len({part["id"] for part in told}) == 1


@pytest.mark.parametrize(
    ("stops", "ends", "tokens"),
    [
        (("\n",), [("dark red", "stop"), ("C:\\new", "length")], 4),
        ((" ",), [("dark", "stop"), ("C:\\new", "length")], 2),
        (("\\", "\n"), [("dark red", "stop"), ("C:", "stop")], 4),
        ((), [("dark red\nblue", "length"), ("C:\\new", "length")], 5),
    ],
)
def test_a_stop_string_ends_each_choice_where_the_client_reads_it(
    stops: tuple[str, ...], ends: list[tuple[str, str]], tokens: int
):
    call = replace(hosted(), stops=stops)
    told = {"tokens": [" dark", " red", "\\", "nb", "lue"], "token_logprobs": [-1.0] * 5, "top_logprobs": [{}] * 5}
    whole = [*choice(0, " dark red\\nblue", "length", told)["choices"], *choice(1, " C:\\\\new", "length")["choices"]]
    first, second = chat_answer(call, request(n=2), {"choices": whole, "usage": USAGE})["choices"]
    assert [(part["message"]["content"], part["finish_reason"]) for part in (first, second)] == ends
    assert first["logprobs"] is not None
    assert len(first["logprobs"]["content"]) == tokens

    chunks = [choice(0, " dark"), choice(1, " C:\\"), choice(0, " red\\"), choice(1, "\\new")]
    chunks += [choice(0, "nb", None, LOGPROBS), choice(0, "lue", None, LOGPROBS), choice(0, "", "length")]
    chunks += [choice(1, "", "length"), {"choices": [], "usage": USAGE}]
    parts = streamed(ScriptedEngine(chunks=chunks), call, request(n=2, stream=True))
    for index, (text, finish) in enumerate(ends):
        own = [part["choices"][0] for part in parts if part["choices"][0]["index"] == index]
        assert "".join(part["delta"].get("content", "") for part in own) == text
        assert [part["finish_reason"] for part in own if part["finish_reason"]] == [finish]
        assert own[-1]["finish_reason"] == finish, "nothing comes after it"


def test_usage_is_streamed_only_when_it_is_asked_for():
    chunks = [choice(0, " a", "stop"), {"choices": [], "usage": USAGE}]
    assert all(part["choices"] for part in streamed(ScriptedEngine(chunks=chunks), hosted(), request(stream=True)))


def test_label_probabilities_are_streamed_with_the_label():
    told = streamed(ScriptedEngine(answer=SCORES), hosted(LABEL_SCORES), request(stream=True))
    assert "".join(part["choices"][0]["delta"].get("content", "") for part in told) == "dark blue"
    assert told[0]["manyicl"]["label_probabilities"]["red"] == pytest.approx(0.1192, abs=1e-4)
    assert told[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a\udfff"}]}]},
        {"stop": "\ud800"},
        {"stop": ["a", "\ud800"]},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": {"type": "number", "maximum": float("nan")}},
            }
        },
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": {"enum": ["\ud800"]}},
            }
        },
    ],
)
def test_what_no_engine_could_be_sent_is_refused(changes: dict[str, Any]):
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
    CreateChatCompletion.model_validate(body)
    with pytest.raises(ValidationError, match=r"half a character|not JSON"):
        CreateChatCompletion.model_validate(body | changes)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": None, "tool_choice": "auto", "function_call": "none", "parallel_tool_calls": True},
        {"modalities": ["text"], "reasoning_effort": "none", "verbosity": "medium", "audio": None},
        {"store": True, "metadata": {"a": "b"}, "service_tier": "auto", "prompt_cache_options": {"ttl": "30m"}},
        {"prediction": {"type": "content", "content": "a"}, "seed": -1, "top_p": 0},
        {"messages": [{"role": "assistant", "content": "a", "refusal": None, "tool_calls": None, "annotations": []}]},
    ],
)
def test_hints_and_what_asks_for_nothing_are_accepted(fields: dict[str, Any]) -> None:
    CreateChatCompletion.model_validate({"model": "m", "messages": [{"role": "user", "content": "x"}], **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function"}]},
        {"functions": [{}]},
        {"tool_choice": "required"},
        {"modalities": ["text", "audio"]},
        {"reasoning_effort": "high"},
        {"verbosity": "low"},
        {"moderation": {}},
        {"web_search_options": {}},
        {"messages": [{"role": "tool", "content": "x", "tool_call_id": "a"}]},
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    ],
)
def test_what_would_change_the_answer_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CreateChatCompletion.model_validate({"model": "m", "messages": [{"role": "user", "content": "x"}], **fields})


def test_a_top_p_of_zero_leaves_the_most_likely_token() -> None:
    assert 0 < request(top_p=0).sampling()["top_p"] < 0.001
