"""The engine's answer as OpenAI's ``text_completion``, whole and streamed."""

import secrets
import time
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from manyicl_core.answers.answer_text import PlainText
from manyicl_core.answers.completion_call import CompletionCall
from manyicl_core.answers.completion_logprobs import CompletionLogprobs
from manyicl_core.answers.completion_request import CreateCompletion
from manyicl_core.answers.grammars import naming_the_field
from manyicl_core.answers.logprobs import until_stop
from manyicl_core.answers.objects import TextChoice, TextCompletion, TextLogprobs
from manyicl_core.engines.client import CompletionEngine, StreamingEngine

_PATH = "/v1/completions"


async def answer_completion(engine: CompletionEngine, call: CompletionCall, body: CreateCompletion) -> TextCompletion:
    """The whole answer to ``body``, whose call is ``call``; the errors are those of the engine."""
    with naming_the_field(call.body):
        answer = await engine.complete(_PATH, call.body)
    manyicl = call.told(answer["usage"])
    choices = [_whole_choice(call, body.n or 1, choice) for choice in answer["choices"]]
    return {
        "id": _id(),
        "object": "text_completion",
        "created": int(time.time()),
        "model": body.model,
        "choices": choices,
        "usage": answer["usage"],
        "system_fingerprint": answer.get("system_fingerprint"),
        "manyicl": manyicl,
    }


async def stream_completion(
    engine: StreamingEngine, call: CompletionCall, body: CreateCompletion
) -> AsyncGenerator[dict[str, Any], None]:
    """The chunks of the answer to ``body``, whose call is ``call``; the errors are those of the engine.

    The first one comes when the engine has started to answer: a refusal is raised before it.
    """
    if not call.is_streamable:
        async for chunk in _told_at_once(engine, call, body):
            yield chunk
        return
    head = {"id": _id(), "object": "text_completion", "created": int(time.time()), "model": body.model}
    texts: defaultdict[int, PlainText] = defaultdict(call.new_text)
    logprobs: defaultdict[int, CompletionLogprobs] = defaultdict(lambda: CompletionLogprobs(call.special))
    manyicl = call.told()
    with naming_the_field(call.body):
        async with aclosing(engine.stream(_PATH, call.body)) as parts:
            async for part in parts:
                fingerprint = {"system_fingerprint": part.get("system_fingerprint")}
                for choice in part["choices"]:
                    index, finish = choice["index"], choice.get("finish_reason")
                    if texts[index].stopped:
                        continue  # it is over, whatever the engine writes
                    text = texts[index].push(choice["text"])
                    if finish is not None:
                        text += texts[index].flush()
                    if texts[index].stopped:
                        finish = "stop"
                    shown = _choice(index, text, finish, logprobs[index].of(choice.get("logprobs")))
                    yield {**head, **fingerprint, "choices": [shown], "usage": None, "manyicl": manyicl}
                # Chunks with choices say how much it is so far.
                if not part["choices"] and body.usage_asked:
                    whole = call.told(part["usage"])
                    yield {**head, **fingerprint, "choices": [], "usage": part["usage"], "manyicl": whole}


async def _told_at_once(
    engine: CompletionEngine, call: CompletionCall, body: CreateCompletion
) -> AsyncGenerator[dict[str, Any], None]:
    """Each choice of a whole answer in one chunk."""
    answer = await answer_completion(engine, call, body)
    for choice in answer["choices"]:
        yield {**answer, "choices": [choice], "usage": None}
    if body.usage_asked:
        yield {**answer, "choices": []}


def _whole_choice(call: CompletionCall, n: int, choice: dict[str, Any]) -> TextChoice:
    prompt = call.echoed[choice["index"] // n] if call.echoed else None
    text, answer = call.new_text(), choice["text"]
    if prompt is not None:
        answer = prompt.text + answer.removeprefix(prompt.decoded)
    content, finish, entries = text.push(answer) + text.flush(), choice["finish_reason"], choice.get("logprobs")
    if text.stopped:
        finish, entries = "stop", until_stop(entries, call.new_text())
    logprobs = CompletionLogprobs(call.special, prompt).of(entries)
    return _choice(choice["index"], content, finish, logprobs)


def _choice(index: int, text: str, finish: str | None, logprobs: TextLogprobs | None) -> TextChoice:
    return {"index": index, "text": text, "finish_reason": finish, "logprobs": logprobs}


def _id() -> str:
    return "cmpl-" + secrets.token_hex(12)
