"""The engine's chunks as OpenAI's ``chat.completion.chunk``."""

from collections.abc import AsyncIterator
from typing import Any

from manyicl_core.answers.chat_answer import answer_head
from manyicl_core.answers.chat_call import EngineCall
from manyicl_core.answers.chat_request import CreateChatCompletion
from manyicl_core.engines.client import EngineClient


async def stream_chat(
    engine: EngineClient, call: EngineCall, body: CreateChatCompletion
) -> AsyncIterator[dict[str, Any]]:
    """The chunks of the answer to ``body``, whose call is ``call``.

    The first one comes when the engine has started to answer: a refusal is raised before it.
    """
    head = {**answer_head(body), "object": "chat.completion.chunk", "manyicl": call.told()}
    text = call.new_text()
    started = False

    def chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**head, "choices": [choice], "usage": None}

    async for part in engine.stream(call.path, call.body):
        if not started:
            started = True
            yield chunk({"role": "assistant", "content": ""})
        if not part["choices"]:
            if body.stream_options is not None and body.stream_options.include_usage:
                yield {**head, "choices": [], "usage": part["usage"]}
            continue
        choice = part["choices"][0]
        piece = text.push(choice["text"] if "text" in choice else choice["delta"].get("content") or "")
        finish = choice["finish_reason"]
        if finish is not None:
            piece += text.flush()
        if piece:
            yield chunk({"content": piece})
        if finish is not None:
            yield chunk({}, finish)
