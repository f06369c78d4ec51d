"""The engine's answer as OpenAI's ``chat.completion``."""

import secrets
import time
from typing import Any

from manyicl_core.answers.chat_call import EngineCall
from manyicl_core.answers.chat_request import CreateChatCompletion
from manyicl_core.engines.client import EngineClient


async def answer_chat(engine: EngineClient, call: EngineCall, body: CreateChatCompletion) -> dict[str, Any]:
    """The whole answer to ``body``, whose call is ``call``."""
    return chat_answer(call, body, await engine.complete(call.path, call.body))


def answer_head(body: CreateChatCompletion) -> dict[str, Any]:
    """What an answer, or every chunk of it, starts with."""
    return {"id": "chatcmpl-" + secrets.token_hex(12), "created": int(time.time()), "model": body.model}


def chat_answer(call: EngineCall, body: CreateChatCompletion, answer: dict[str, Any]) -> dict[str, Any]:
    """The engine's whole ``answer`` in OpenAI's shape."""
    return {
        **answer_head(body),
        "object": "chat.completion",
        "choices": [_choice(call, choice) for choice in answer["choices"]],
        "usage": answer["usage"],
        "manyicl": call.told(),
    }


def _choice(call: EngineCall, choice: dict[str, Any]) -> dict[str, Any]:
    text = call.new_text()
    content = text.push(choice["text"] if "text" in choice else choice["message"]["content"]) + text.flush()
    message = {"role": "assistant", "content": content, "refusal": None}
    return {"index": choice["index"], "message": message, "finish_reason": choice["finish_reason"], "logprobs": None}
