"""Completions: what is asked of the engine, and what is told of its answer."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from manyicl_core.answers.completion_answer import answer_completion, stream_completion
from manyicl_core.answers.completion_call import CompletionCall, Prompt
from manyicl_core.answers.completion_logprobs import CompletionLogprobs
from manyicl_core.answers.completion_request import CreateCompletion
from manyicl_core.store.contexts.service import HostedPrompt
from tests.unit.answers.test_chat import USAGE, ScriptedEngine, choice

SPECIAL = frozenset({0})
CALL = CompletionCall({"prompt": [1]}, None, (), SPECIAL)


def told(*tokens: tuple[int, str, bytes]) -> dict[str, Any]:
    return {
        "token_ids": [token for token, _, _ in tokens],
        "tokens": [text for _, text, _ in tokens],
        "bytes": [list(octets) for _, _, octets in tokens],
        "token_logprobs": [-1.0 for _ in tokens],
        "top_logprobs": [{"x": -0.5} for _ in tokens],
        "text_offset": [7 for _ in tokens],
    }


def offsets(logprobs: CompletionLogprobs, *tokens: tuple[int, str, bytes]) -> list[int]:
    shown = logprobs.of(told(*tokens))
    assert shown is not None
    return list(shown["text_offset"])


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_a_prompt_has_four_shapes(prompt: Any, prompts: Any) -> None:
    assert CreateCompletion(model="m", prompt=prompt).prompt == prompts


@pytest.mark.parametrize("prompt", ["", [], [[]], [1, "a"], ["a", 1], [["a"]], [True], [-1], [1.5], None, {}, "\ud800"])
def test_other_shapes_are_refused(prompt: Any) -> None:
    with pytest.raises(ValidationError):
        CreateCompletion(model="m", prompt=prompt)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"max_tokens": 0}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"suffix": "b"}, "suffix"),
        ({"logprobs": 21}, "20"),
    ],
)
def test_what_would_change_the_answer_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        CreateCompletion(model="m", prompt="a", **fields)


def test_fields_that_change_nothing_are_accepted() -> None:
    body = CreateCompletion(model="m", prompt="a", n=2, best_of=2, suffix="", echo=True, max_tokens=0, user="me")
    assert body.max_tokens == 0


def test_a_character_of_several_tokens_begins_with_the_first_of_them() -> None:
    tokens = [(5, "a", b"a"), (6, "\ufffd", b"\xc3"), (7, "\ufffd", b"\xbc"), (8, "b", b"b")]
    assert offsets(CompletionLogprobs(SPECIAL), *tokens) == [0, 1, 1, 2]


def test_offsets_count_on_from_piece_to_piece() -> None:
    logprobs = CompletionLogprobs(SPECIAL)
    assert offsets(logprobs, (5, "ab", b"ab")) == [0]
    assert offsets(logprobs, (5, "ab", b"ab"), (6, "c", b"c")) == [2, 4]


def test_special_tokens_take_room_where_the_prompt_has_them_and_none_in_an_answer() -> None:
    prompt = Prompt(text="<s>a", decoded="<s><s>a", tokens=3, silent=1)
    start = (0, "<s>", b"<s>")
    logprobs = CompletionLogprobs(SPECIAL, prompt)
    assert offsets(logprobs, start, start, (5, "a", b"a"), start, (6, "b", b"b")) == [0, 0, 3, 4, 4]


def test_the_token_that_stands_there_is_told_beside_the_most_likely_ones() -> None:
    shown = CompletionLogprobs(SPECIAL).of(told((5, "y", b"y"), (6, "x", b"x")))
    assert shown is not None
    assert shown["top_logprobs"] == [{"x": -0.5, "y": -1.0}, {"x": -0.5}]


def test_the_first_token_of_a_text_has_no_probability() -> None:
    first = {**told((5, "y", b"y")), "top_logprobs": [None], "token_logprobs": [None]}
    shown = CompletionLogprobs(SPECIAL, Prompt("y", "y", 1, 0)).of(first)
    assert shown is not None
    assert shown["top_logprobs"] == shown["token_logprobs"] == [None]


def test_usage_is_streamed_once_and_only_when_it_is_asked_for() -> None:
    def usages(**fields: Any) -> list[Any]:
        engine = ScriptedEngine(chunks=[choice(0, "a"), choice(0, "b", "stop"), {"choices": [], "usage": USAGE}])
        body = CreateCompletion(model="m", prompt="a", stream=True, **fields)

        async def read() -> list[Any]:
            return [part["usage"] async for part in stream_completion(engine, CALL, body)]

        return asyncio.run(read())

    assert usages() == [None, None]
    assert usages(stream_options={"include_usage": True}) == [None, None, USAGE]


def test_every_chunk_of_a_stream_tells_the_demonstrations_and_the_last_what_was_cached() -> None:
    engine = ScriptedEngine(chunks=[choice(0, " a"), choice(0, "b", "stop"), {"choices": [], "usage": USAGE}])
    prompt = HostedPrompt(prefix=(1, 2), query=(3,), shots=1, stop_token=9, labels=None, context="ctx_a")
    body = CreateCompletion(model="ctx_a", prompt="a", stream=True, stream_options={"include_usage": True})

    async def read(call: CompletionCall) -> list[Any]:
        return [part["manyicl"] async for part in stream_completion(engine, call, body)]

    shown = {"context": "ctx_a", "shots": 1, "context_tokens": 2}
    hosted = CompletionCall({"prompt": [1, 2, 3]}, prompt, (), SPECIAL)
    assert asyncio.run(read(hosted)) == [shown, shown, shown | {"cached_tokens": 5}]
    assert asyncio.run(read(CALL)) == [None, None, None]


def test_a_stop_string_ends_a_tasks_answer_where_the_client_reads_it_streamed_or_not() -> None:
    hosted = HostedPrompt(prefix=(), query=(1,), shots=0, stop_token=9, labels=None)
    call = CompletionCall({"prompt": [1]}, hosted, (), SPECIAL, ("\n",))
    body = CreateCompletion(model="m", prompt="a")
    tokens = told((5, " a b", b" a b"), (6, "\\n", b"\\n"), (7, "c", b"c"))
    answer = {**choice(0, " a b\\nc", "length", tokens), "usage": USAGE}
    [whole] = asyncio.run(answer_completion(ScriptedEngine(answer), call, body))["choices"]
    assert (whole["text"], whole["finish_reason"]) == ("a b", "stop")
    assert whole["logprobs"] is not None
    assert whole["logprobs"]["tokens"] == [" a b", "\\n"]

    chunks = [choice(0, " a b\\"), choice(0, "nc"), choice(0, "d"), choice(0, "", "length")]

    async def read() -> list[Any]:
        engine = ScriptedEngine(chunks=chunks)
        return [part["choices"][0] async for part in stream_completion(engine, call, body)]

    assert [(part["text"], part["finish_reason"]) for part in asyncio.run(read())] == [("a b", None), ("", "stop")]
