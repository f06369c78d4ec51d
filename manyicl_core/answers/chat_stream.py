"""The engine's chunks as OpenAI's ``chat.completion.chunk``."""

import time
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from manyicl_core.answers.answer_text import PlainText
from manyicl_core.answers.chat_answer import answer_chat, answer_id
from manyicl_core.answers.chat_call import EngineCall
from manyicl_core.answers.chat_request import CreateChatCompletion
from manyicl_core.answers.grammars import naming_the_field
from manyicl_core.answers.logprobs import chat_logprobs
from manyicl_core.answers.objects import ChatLogprobs, PlainTold, Told
from manyicl_core.answers.prompts import LABEL_SCORES
from manyicl_core.engines.client import StreamingEngine


async def stream_chat(
    engine: StreamingEngine, call: EngineCall, body: CreateChatCompletion
) -> AsyncGenerator[dict[str, Any], None]:
    """The chunks of the answer to ``body``, whose call is ``call``; the errors are those of the engine.

    The first one comes when the engine has started to answer: a refusal is raised before it.
    """
    parts = _drawn_answer(engine, call, body) if call.path == LABEL_SCORES else _written_answer(engine, call, body)
    head = {
        "id": answer_id(),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": body.model,
    }
    with naming_the_field(call.body):
        async with aclosing(parts):
            async for part in parts:
                if part["choices"] or body.usage_asked:
                    yield {**head, **part}


async def _written_answer(
    engine: StreamingEngine, call: EngineCall, body: CreateChatCompletion
) -> AsyncGenerator[dict[str, Any], None]:
    texts: defaultdict[int, PlainText] = defaultdict(call.new_text)
    manyicl = call.told()
    async with aclosing(engine.stream(call.path, call.body)) as parts:
        async for part in parts:
            fingerprint = {"system_fingerprint": part.get("system_fingerprint")}
            if not part["choices"]:  # the others say how much it is so far
                usage = part["usage"]
                yield {"choices": [], "usage": usage, **fingerprint, "manyicl": call.told(usage)}
            for choice in part["choices"]:
                index, finish = choice["index"], choice.get("finish_reason")
                if index in texts and texts[index].stopped:
                    continue  # it is over, whatever the engine writes
                if index not in texts:
                    yield _chunk(manyicl, index, {"role": "assistant", "content": ""}) | fingerprint
                piece = texts[index].push(choice["text"])
                if finish is not None:
                    piece += texts[index].flush()
                if texts[index].stopped:
                    finish = "stop"
                logprobs = chat_logprobs(choice.get("logprobs"), body.top_logprobs or 0)
                if piece or logprobs:
                    yield _chunk(manyicl, index, {"content": piece}, logprobs=logprobs) | fingerprint
                if finish is not None:
                    yield _chunk(manyicl, index, {}, finish) | fingerprint


async def _drawn_answer(
    engine: StreamingEngine, call: EngineCall, body: CreateChatCompletion
) -> AsyncGenerator[dict[str, Any], None]:
    """A label of which all is known at once."""
    answer = await answer_chat(engine, call, body)
    manyicl, fingerprint = answer["manyicl"], {"system_fingerprint": answer["system_fingerprint"]}
    for choice in answer["choices"]:
        yield _chunk(manyicl, choice["index"], {"role": "assistant", "content": ""}) | fingerprint
        yield _chunk(manyicl, choice["index"], {"content": choice["message"]["content"]}) | fingerprint
        yield _chunk(manyicl, choice["index"], {}, choice["finish_reason"]) | fingerprint
    yield {"choices": [], "usage": answer["usage"], **fingerprint, "manyicl": manyicl}


def _chunk(
    manyicl: Told | PlainTold | None,
    index: int,
    delta: dict[str, str],
    finish: str | None = None,
    logprobs: ChatLogprobs | None = None,
) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
    return {"choices": [choice], "usage": None, "manyicl": manyicl}
